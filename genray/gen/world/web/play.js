// The page: keys, a joystick for fingers, a gamepad, and what is said below the screen.
import { Game, unpacked } from "./game.js";

const KEYS = {
  ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE",
}; // prettier-ignore
const DIGIT = /^\d$/;
const TILTED = 0.5; // of a gamepad's stick, whose ends are -1 and 1
const STALL_MS = 250; // a page in the background does not catch up on more than this

const find = (id) => document.getElementById(id);

async function read() {
  const about = JSON.parse(find("model").textContent),
    response = await fetch(`data:application/octet-stream;base64,${find("weights").textContent}`);
  return new Game(unpacked(about, await response.arrayBuffer()));
}

/** The number of the action for the keys that are held; an unknown direction is left out. */
function actionOf(held, actions) {
  const names = actions.map((each) => each.toUpperCase()),
    digit = names.findIndex((each) => DIGIT.test(each) && held.has(each)),
    pick = (...all) => all.find((each) => held.has(each)) ?? "",
    up = pick("UP", "DOWN"),
    side = pick("RIGHT", "LEFT"),
    fire = pick("FIRE");
  if (digit >= 0) return digit; // an action without a name
  for (const name of [up + side + fire, up + side, side + fire, side, up, fire]) {
    if (name && names.includes(name)) return names.indexOf(name);
  }
  return Math.max(0, names.indexOf("NOOP"));
}

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

function listen(held) {
  const key = (event) => {
    const name = KEYS[event.key] ?? event.key.match(DIGIT)?.[0];
    if (!name || event.target.closest("input, select")) return;
    if (event.key === " " && event.target.closest("button")) return; // it presses the button
    event.preventDefault(); // the page must not scroll
    if (event.type === "keydown") held.add(name);
    else held.delete(name);
  };
  window.addEventListener("keydown", key);
  window.addEventListener("keyup", key);
  window.addEventListener("blur", () => held.clear());
  for (const button of document.querySelectorAll("[data-hold]")) {
    const hold = (event) => {
      event.preventDefault();
      if (event.type === "pointerdown") {
        held.add(button.dataset.hold);
        button.setPointerCapture(event.pointerId); // a finger that leaves the button releases it
      } else held.delete(button.dataset.hold);
    };
    for (const type of ["pointerdown", "pointerup", "pointercancel"]) {
      button.addEventListener(type, hold);
    }
    button.addEventListener("contextmenu", (event) => event.preventDefault());
  }
}

function say(game, rate) {
  const lives = game.lost ? `, ${game.lost} lost` : "",
    speed = rate ? ` · ${rate} screens a second` : "",
    end = game.over ? " · Game over" : "";
  find("score").textContent =
    `${game.steps} steps since reality · score ${game.score}${lives}${end || speed}`;
  const { usual, unusual } = game.about,
    real = unusual > 0 ? `; a real screen has ${(-usual).toFixed(0)} on average` : "",
    lost = game.known ? "" : ". The model no longer knows what it shows.";
  find("likely").textContent =
    game.nats === undefined
      ? "This screen is real."
      : `ln p of this screen: ${(-game.nats).toFixed(1)}${real}${lost}`;
}

async function run() {
  const game = await read(),
    canvas = find("screen"),
    held = new Set(),
    drawn = [];
  canvas.width = game.screen.width;
  canvas.height = game.screen.height;
  find("start").max = game.starts.length - 1;
  if (game.about.actions.every((each) => DIGIT.test(each))) {
    find("keys").textContent = `Then the keys 0 to ${game.about.actions.length - 1}.`;
  }
  let playing = false,
    due = 0;

  const show = () => {
    game.screen.show(canvas.getContext("2d"), game.painted());
    const now = performance.now();
    drawn.push(now);
    while (now - drawn[0] > 2000) drawn.shift();
    const seconds = (now - drawn[0]) / 1000;
    say(game, seconds < 1 ? 0 : Math.round((drawn.length - 1) / seconds));
  };
  const begin = () => {
    game.begin(Number(find("start").value) || 0, Number(find("seed").value) || 0);
    drawn.length = 0;
    show();
  };
  const frame = (now) => {
    if (!playing) return;
    const pause = 1000 / Number(find("speed").value);
    if (now >= due) {
      due = Math.max(due + pause, now - STALL_MS);
      const holds = new Set([...held, ...padsHold()]);
      game.step(actionOf(holds, game.about.actions));
      show();
      if (game.over) return stop();
    }
    requestAnimationFrame(frame);
  };
  const stop = () => {
    playing = false;
    find("play").textContent = "Start again";
  };
  find("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    begin();
    canvas.focus();
    find("play").textContent = "Start again";
    due = performance.now();
    if (!playing) requestAnimationFrame(frame);
    playing = true;
  });
  find("stop").addEventListener("click", stop);
  listen(held);
  begin();
  window.game = game;
}

run().catch((problem) => {
  find("likely").textContent = `This browser cannot show the game: ${problem.message}`;
});
