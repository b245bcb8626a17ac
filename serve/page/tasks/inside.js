// Plays inside a world model: the game runs in the network, from a real screen, by keys or touch.
import { html, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress, whole } from "../lib/address.js";
import { png } from "../lib/api.js";
import { title } from "../lib/names.js";
import { open } from "../lib/socket.js";
import { Problem, useWork } from "../lib/work.js";
import { actionOf, Joystick } from "../parts/joystick.js";

const SPEEDS = [
  [15, "as fast as the game"],
  [30, "twice as fast"],
  [60, "four times as fast"],
  [5, "slowly"],
];

const INVITATION =
  "Press Start, then the arrow keys; the space bar fires. No game runs here: a network that watched it draws each screen from the last ones and your keys.";

export function Inside({ model }) {
  const address = useAddress();
  const [start, setStart] = useState(whole(address.start, 0));
  const [seed, setSeed] = useState(whole(address.seed, 0));
  const [speed, setSpeed] = useState(whole(address.fps, 15));
  const [about, setAbout] = useState(null);
  const [step, setStep] = useState(null);
  const [end, setEnd] = useState("");
  const canvas = useRef(null),
    socket = useRef(null),
    action = useRef(0);
  const work = useWork();

  function begin(event) {
    event.preventDefault();
    note({ start, seed, fps: speed === 15 ? "" : speed });
    setEnd("");
    canvas.current.focus();
    const path = `api/worlds/${encodeURIComponent(model.id)}?start=${start}&seed=${seed}&fps=${speed}`;
    action.current = 0;
    work.run(async ({ signal }) => {
      const game = open(path, async (line) => {
        if (line.actions) setAbout(line);
        if (line.end) return setEnd(line.end);
        await show(canvas.current, line.png);
        // A key that is held says that somebody plays.
        const held = action.current ? { action: action.current } : {};
        game.send({ seen: line.step, ...held });
        return setStep(line);
      });
      socket.current = game;
      signal.addEventListener("abort", game.close);
      await game.done;
    });
  }

  function change(held) {
    const next = actionOf(held, about?.actions ?? []);
    if (next !== action.current) socket.current?.send({ action: next });
    action.current = next;
  }

  return html`<div class="task result-first">
    <form class="controls" onSubmit=${begin}>
      <label
        >Real screen to start from
        <input
          type="number"
          name="start"
          min="0"
          max="31"
          value=${start}
          onInput=${(event) => setStart(whole(event.target.value, 0))}
        />
        <small>The model keeps 32 moments of real games.</small></label
      >
      <label
        >Seed
        <input
          type="number"
          name="seed"
          min="0"
          max="2147483647"
          value=${seed}
          onInput=${(event) => setSeed(whole(event.target.value, 0))}
        />
        <small>The same seed and keys give the same dream.</small></label
      >
      <label
        >Speed
        <select value=${speed} onChange=${(event) => setSpeed(Number(event.target.value))}>
          ${SPEEDS.map(([fps, name]) => html`<option value=${fps}>${name}</option>`)}
        </select></label
      >
      <div class="buttons">
        <button>${step ? "Start again" : "Start"}</button>
        <button type="button" class="secondary" disabled=${!work.busy} onClick=${work.cancel}>
          Stop
        </button>
      </div>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Problem} work=${work} />
      <figure class="result">
        <canvas
          class="pixel screen"
          ref=${canvas}
          tabindex="0"
          width=${model.about.shape?.[2] ?? 160}
          height=${model.about.shape?.[1] ?? 210}
          role="img"
          aria-label=${`The screen of ${title(model.about.game || "the game")} inside the model`}
        />
        <figcaption>${caption(step, end, work.busy)}</figcaption>
      </figure>
      <${Joystick} active=${work.busy} change=${change} />
      <p class=${step && step.known === false ? "likely lost" : "likely"}>${likely(step, about)}</p>
      ${!step && html`<p class="hint">${INVITATION}</p>`}
    </div>
  </div>`;
}

function caption(step, end, busy) {
  if (!step) return "";
  const state = end || (busy ? "" : "Stopped.");
  const lives = step.lives_lost ? `, ${step.lives_lost} lost` : "";
  return `${step.step} steps since reality · score ${step.score}${lives} ${state}`;
}

/** How likely the last frame was, beside real ones. */
function likely(step, about) {
  if (!step) return "";
  if (step.nats === undefined) return "This screen is real.";
  const usual = about.unusual
    ? `; a real screen has ${(-about.usual).toFixed(0)} on average, and 99.5 % are above ${(-about.unusual).toFixed(0)}`
    : "";
  const lost = step.known ? "" : ". The model no longer knows what it shows.";
  return `ln p of this screen: ${(-step.nats).toFixed(1)}${usual}${lost}`;
}

async function show(canvas, content) {
  const image = new Image();
  image.src = png(content);
  await image.decode();
  if (canvas.width !== image.width) canvas.width = image.width;
  if (canvas.height !== image.height) canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
}
