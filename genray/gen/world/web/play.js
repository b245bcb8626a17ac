// The page: starts and stops the game, and says below the screen what happens.
import { Game, unpacked } from "./game.js";
import { Joystick } from "./joystick.js";

const STALL_MS = 250; // a page in the background does not catch up on more than this

const find = (id) => document.getElementById(id);

async function read() {
  const about = JSON.parse(find("model").textContent),
    response = await fetch(`data:application/octet-stream;base64,${find("weights").textContent}`);
  return new Game(unpacked(about, await response.arrayBuffer()));
}

function say(game, rate) {
  const lives = game.lost ? `, ${game.lost} lost` : "",
    speed = rate ? ` · ${rate} screens a second` : "",
    score = Number(game.score.toPrecision(6)); // rewards of own games may be fractions
  find("score").textContent = `${game.steps} steps since reality · score ${score}${lives}${speed}`;
  const { usual, unusual } = game.about,
    real = unusual > 0 ? `; a real screen has ${(-usual).toFixed(0)} on average` : "",
    lost = game.known ? "" : ". The model no longer knows what it shows.";
  find("likely").textContent =
    game.nats === undefined
      ? "This screen is real."
      : `ln p of this screen: ${(-game.nats).toFixed(1)}${real}${lost}`;
}

/** The button and the key that hand the joystick to the agent and back. */
class HandOver {
  constructor(joystick) {
    this.button = find("agent");
    this.handed = false; // whether the agent has the joystick
    this.button.hidden = false;
    this.button.addEventListener("click", (event) => {
      this.turn(joystick);
      if (event.detail) find("screen").focus(); // of a pointer: the space bar fires, as before
    });
    window.addEventListener("keydown", (event) => {
      if (event.key.toLowerCase() !== "m" || event.repeat) return;
      if (joystick.listens(event)) this.turn(joystick);
    });
    find("keys").textContent += " The key m hands over to the agent, and back.";
  }

  turn(joystick) {
    this.handed = !this.handed;
    this.button.textContent = this.handed ? "Play yourself (m)" : "Let the agent play (m)";
    if (joystick.active) this.say();
  }

  say() {
    find("state").textContent = this.handed ? "The agent plays." : "You play.";
  }
}

async function run() {
  const game = await read(),
    canvas = find("screen"),
    joystick = new Joystick(game.about.actions, find("joystick")),
    drawn = [];
  canvas.width = game.screen.width;
  canvas.height = game.screen.height;
  find("start").max = game.starts.length - 1;
  if (joystick.numbered) {
    find("keys").textContent = `Start, then the keys 0 to ${Math.min(9, joystick.names.length - 1)}.`;
    canvas.style.aspectRatio = `${canvas.width} / ${canvas.height}`; // not a television's
  }
  const handOver = game.agent ? new HandOver(joystick) : null;
  let turn = 0, // of the animation
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
    game.begin(Number(find("start").value), Number(find("seed").value));
    drawn.length = 0;
    show();
  };
  const frame = (now) => {
    turn = requestAnimationFrame(frame);
    if (now < due) return;
    due = Math.max(due + 1000 / Number(find("speed").value), now - STALL_MS);
    game.step(handOver?.handed ? game.agent.act() : joystick.action());
    show();
    if (game.over) stop();
  };
  const stop = () => {
    cancelAnimationFrame(turn);
    joystick.active = false;
    find("state").textContent = game.over ? "Game over." : "Stopped.";
  };
  find("controls").addEventListener("submit", (event) => {
    event.preventDefault();
    cancelAnimationFrame(turn);
    begin();
    canvas.focus();
    find("play").textContent = "Start again";
    if (handOver) handOver.say();
    else find("state").textContent = "Playing.";
    joystick.active = true;
    due = performance.now();
    turn = requestAnimationFrame(frame);
  });
  find("stop").addEventListener("click", stop);
  begin();
  find("play").disabled = find("stop").disabled = false;
  window.game = game;
}

run().catch((problem) => {
  find("likely").textContent = `This browser cannot show the game: ${problem.message}`;
});
