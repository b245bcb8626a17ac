// A joystick: arrow keys and the space bar, buttons for fingers, or a gamepad. It gives the number of
// an action. Actions with numbers as names have a button and a key each.
import { html, useEffect, useRef } from "../vendor/htm-preact-standalone.module.js";

const KEYS = {
  ArrowUp: "UP",
  ArrowDown: "DOWN",
  ArrowLeft: "LEFT",
  ArrowRight: "RIGHT",
  " ": "FIRE",
};
const NUMBER = /^\d+$/;
const TILTED = 0.5; // of a gamepad's stick, whose ends are -1 and 1
const PRESSED_MS = 200; // how long a button is held that a keyboard or a screen reader presses
const BUTTONS = [
  ["UP", "↑"],
  ["LEFT", "←"],
  ["FIRE", "●"],
  ["RIGHT", "→"],
  ["DOWN", "↓"],
];

/** Whether the actions have no names, as those of a user's own environment. */
const numbered = (actions) => actions.length > 0 && actions.every((each) => NUMBER.test(each));

/** The number of the action for what is held; an unknown direction is left out. */
export function actionOf(held, actions) {
  if (numbered(actions)) return Math.max(0, actions.findIndex((each) => held.has(each)));
  const names = actions.map((each) => each.toUpperCase());
  const pick = (...all) => all.find((each) => held.has(each)) ?? "";
  const up = pick("UP", "DOWN"),
    side = pick("RIGHT", "LEFT"),
    fire = pick("FIRE");
  for (const name of [up + side + fire, up + side, side + fire, side, up, fire]) {
    if (name && names.includes(name)) return names.indexOf(name);
  }
  return Math.max(0, names.indexOf("NOOP"));
}

/** The names that a gamepad holds; its buttons 12 to 15 are a cross, and 0 to 3 fire. */
export function heldBy(pad) {
  const held = new Set(),
    down = (number) => Boolean(pad.buttons[number]?.pressed),
    [x = 0, y = 0] = pad.axes;
  if (y < -TILTED || down(12)) held.add("UP");
  if (y > TILTED || down(13)) held.add("DOWN");
  if (x < -TILTED || down(14)) held.add("LEFT");
  if (x > TILTED || down(15)) held.add("RIGHT");
  if ([0, 1, 2, 3].some(down)) held.add("FIRE");
  return held;
}

/** Calls `change(held)` when a key or a button changes while `active`; `held`: a Set of names.
 * `actions`: the names of the game's actions. */
export function Joystick({ active, actions, change }) {
  const held = useRef(new Set()),
    latest = useRef(change);
  const known = useRef(actions);
  latest.current = change; // the listeners below outlive a rendering
  known.current = actions;
  function hold(name, down) {
    if (held.current.has(name) === down) return;
    if (down) held.current.add(name);
    else held.current.delete(name);
    latest.current(held.current);
  }
  useEffect(() => {
    if (!active) return undefined;
    const nameOf = ({ key }) => {
      const names = known.current;
      return numbered(names) ? names.find((each) => each === key) : KEYS[key];
    };
    const key = (event) => {
      const name = nameOf(event);
      if (!name || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.target.closest?.("input, select, textarea, a")) return;
      // The space bar presses a button that has the focus.
      if (event.key === " " && event.target.closest?.("button")) return;
      event.preventDefault(); // the page must not scroll
      hold(name, true);
    };
    // A key is released wherever the focus is by then.
    const up = (event) => hold(nameOf(event), false);
    const release = () => [...held.current].forEach((name) => hold(name, false));
    window.addEventListener("keydown", key);
    window.addEventListener("keyup", up);
    window.addEventListener("blur", release);
    return () => {
      window.removeEventListener("keydown", key);
      window.removeEventListener("keyup", up);
      window.removeEventListener("blur", release);
      release();
    };
  }, [active]);
  useEffect(() => {
    if (!active || !navigator.getGamepads) return undefined;
    let before = new Set(),
      turn = 0;
    // A gamepad has no events for its buttons: it is read before each drawn frame.
    function read() {
      const pads = [...navigator.getGamepads()].filter((each) => each?.connected),
        now = new Set(pads.flatMap((each) => [...heldBy(each)]));
      for (const [name] of BUTTONS) if (before.has(name) !== now.has(name)) hold(name, now.has(name));
      before = now;
      turn = requestAnimationFrame(read);
    }
    read();
    return () => cancelAnimationFrame(turn);
  }, [active]);
  const press = (name) => (event) => {
    if (event.detail) return; // of a pointer
    hold(name, true);
    setTimeout(() => hold(name, false), PRESSED_MS);
  };
  const finger = (name, down) => (event) => {
    event.preventDefault();
    hold(name, down);
    // A finger that leaves the button still releases it.
    if (down) event.target.setPointerCapture(event.pointerId);
  };
  const buttons = numbered(actions) ? actions.map((each) => [each, each]) : BUTTONS,
    many = numbered(actions) ? "joystick numbered" : "joystick";
  return html`<div class=${many} role="group" aria-label="Joystick">
    ${buttons.map(
      ([name, sign]) =>
        html`<button
          key=${name}
          type="button"
          class=${`secondary outline ${name.toLowerCase()}`}
          aria-label=${numbered(actions) ? `action ${name}` : name.toLowerCase()}
          disabled=${!active}
          onPointerDown=${finger(name, true)}
          onPointerUp=${finger(name, false)}
          onPointerCancel=${finger(name, false)}
          onClick=${press(name)}
          onContextMenu=${(event) => event.preventDefault()}
        >
          ${sign}
        </button>`,
    )}
  </div>`;
}
