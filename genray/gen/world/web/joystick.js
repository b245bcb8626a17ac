// The player's hands: keys, buttons for fingers, and gamepads. They give the number of an action.

const KEYS = {
  ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE",
}; // prettier-ignore
const DIRECTIONS = { UP: "↑", LEFT: "←", FIRE: "●", RIGHT: "→", DOWN: "↓" };
const NUMBER = /^\d+$/;
const TILTED = 0.5; // of a gamepad's stick, whose ends are -1 and 1
const PRESSED_MS = 200; // how long a button is held that a keyboard or a screen reader presses

/** The names that the gamepads hold. */
function padsHold() {
  const held = new Set();
  for (const pad of navigator.getGamepads?.() ?? []) {
    if (!pad) continue;
    const down = (...numbers) => numbers.some((each) => pad.buttons[each]?.pressed),
      [x = 0, y = 0] = pad.axes;
    if (y < -TILTED || down(12)) held.add("UP");
    if (y > TILTED || down(13)) held.add("DOWN");
    if (x < -TILTED || down(14)) held.add("LEFT");
    if (x > TILTED || down(15)) held.add("RIGHT");
    if (down(0, 1, 2, 3)) held.add("FIRE");
  }
  return held;
}

export class Joystick {
  /** Puts the buttons into `box`. Actions with numbers as names have a button and a key each. */
  constructor(actions, box) {
    this.names = actions.map((each) => each.toUpperCase());
    this.numbered = this.names.every((each) => NUMBER.test(each));
    this.active = false; // whether keys belong to the game, and not to the page
    this.held = new Set();
    const buttons = this.numbered ? this.names.map((each) => [each, each]) : Object.entries(DIRECTIONS);
    for (const [name, sign] of buttons) box.append(this.button(name, sign));
    box.classList.toggle("numbered", this.numbered);
    window.addEventListener("keydown", (event) => this.press(event));
    window.addEventListener("keyup", (event) => this.held.delete(this.nameOf(event)));
    window.addEventListener("blur", () => this.held.clear());
  }

  nameOf(event) {
    return this.numbered ? this.names.find((each) => each === event.key) : KEYS[event.key];
  }

  press(event) {
    const name = this.nameOf(event);
    if (!name || !this.listens(event)) return;
    if (event.key === " " && event.target.closest("button")) return; // it presses the button
    event.preventDefault(); // the page must not scroll
    this.held.add(name);
  }

  /** Whether a key belongs to the game. */
  listens(event) {
    if (!this.active || event.ctrlKey || event.altKey || event.metaKey) return false;
    return !event.target.closest("input, select");
  }

  button(name, sign) {
    const button = document.createElement("button"),
      release = () => this.held.delete(name);
    Object.assign(button, { type: "button", textContent: sign });
    button.dataset.hold = name;
    button.setAttribute("aria-label", this.numbered ? `action ${name}` : name.toLowerCase());
    button.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.held.add(name);
      button.setPointerCapture(event.pointerId); // a finger that leaves the button releases it
    });
    button.addEventListener("pointerup", release);
    button.addEventListener("pointercancel", release);
    button.addEventListener("contextmenu", (event) => event.preventDefault());
    button.addEventListener("click", (event) => {
      if (event.detail) return; // of a pointer
      this.held.add(name);
      setTimeout(release, PRESSED_MS);
    });
    return button;
  }

  /** The number of the action for what is held; an unknown direction is left out. */
  action() {
    const held = new Set([...this.held, ...padsHold()]);
    if (this.numbered) return Math.max(0, this.names.findIndex((each) => held.has(each)));
    const pick = (...all) => all.find((each) => held.has(each)) ?? "",
      up = pick("UP", "DOWN"),
      side = pick("RIGHT", "LEFT"),
      fire = pick("FIRE");
    for (const name of [up + side + fire, up + side, side + fire, side, up, fire]) {
      if (name && this.names.includes(name)) return this.names.indexOf(name);
    }
    return Math.max(0, this.names.indexOf("NOOP"));
  }
}
