// Watches an agent play: its screen, the value it expects of each action, and a curve of values.
import { html, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress, whole } from "../lib/address.js";
import { ask, lines, png, Refused } from "../lib/api.js";
import { title } from "../lib/names.js";
import { Problem, useWork } from "../lib/work.js";
import { routeSnippets, Snippets } from "../parts/snippet.js";
import { Curve } from "./curve.js";

const SPEEDS = [
  [15, "as fast as the game"],
  [30, "twice as fast"],
  [60, "four times as fast"],
];

const STARTING = "Starting the game…";
const INVITATION = "Press Play. The bars will show what the agent expects of each action.";

export function Play({ model, service }) {
  const address = useAddress();
  const [seed, setSeed] = useState(whole(address.seed, 0));
  const [speed, setSpeed] = useState(whole(address.fps, 15));
  const [chance, setChance] = useState(Math.min(1, Number(address.epsilon) || 0.001));
  const [step, setStep] = useState(null);
  const [actions, setActions] = useState([]);
  const [over, setOver] = useState(false);
  const canvas = useRef(null),
    curve = useRef(null);
  const work = useWork();
  const steps = service.limits.max_play_steps;
  const path = `api/play/${encodeURIComponent(model.id)}?seed=${seed}&steps=${steps}&fps=${speed}&epsilon=${chance}`;

  function start(event) {
    event.preventDefault();
    note({ seed, fps: speed === 15 ? "" : speed, epsilon: chance === 0.001 ? "" : chance });
    setOver(false);
    setStep(null);
    curve.current?.clear();
    work.run(async ({ signal }) => {
      const answer = await ask(path, { signal });
      for await (const next of lines(answer)) {
        if (next.error) throw new Refused(next.error, 400);
        if (next.actions) setActions(next.actions);
        await show(canvas.current, next.png);
        if (next.q) curve.current?.add(next.step, Math.max(...next.q));
        setStep(next);
      }
      setOver(true);
    });
  }

  return html`<div class="task result-first">
    <form class="controls" onSubmit=${start}>
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
        <small>Another seed starts another game.</small></label
      >
      <label
        >Speed
        <select value=${speed} onChange=${(event) => setSpeed(Number(event.target.value))}>
          ${SPEEDS.map(([fps, name]) => html`<option value=${fps}>${name}</option>`)}
        </select></label
      >
      <label
        >Random actions
        <select value=${chance} onChange=${(event) => setChance(Number(event.target.value))}>
          ${[
            [0.001, "almost none"],
            [0.05, "one in 20"],
            [0.25, "one in 4"],
            [1, "all: no agent"],
          ].map(([value, name]) => html`<option value=${value}>${name}</option>`)}
        </select></label
      >
      <div class="buttons">
        <button disabled=${work.busy}>${step ? "Play again" : "Play"}</button>
        <button type="button" class="secondary" disabled=${!work.busy} onClick=${work.cancel}>
          Stop
        </button>
      </div>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Problem} work=${work} />
      <div class="game">
        <figure class="result">
          <canvas
            class="pixel screen"
            ref=${canvas}
            width="160"
            height="210"
            role="img"
            aria-label=${`The screen of ${title(model.about.game)}`}
          />
          <figcaption>${caption(step, over, work.busy)}</figcaption>
        </figure>
        ${step?.q ? html`<${Values} actions=${actions} step=${step} />` : html`<p class="hint">${work.busy ? STARTING : INVITATION}</p>`}
      </div>
      <${Curve} handle=${curve} label="Expected value of the best action" />
    </div>
    <${Snippets} programs=${routeSnippets(path, { save: "game.jsonl", login: service.login })} />
  </div>`;
}

function caption(step, over, busy) {
  if (!step) return "";
  return `${over ? "Game over: score" : busy ? "Score" : "Stopped: score"} ${step.score}, step ${step.step}`;
}

async function show(canvas, content) {
  const image = new Image();
  image.src = png(content);
  await image.decode();
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext("2d").drawImage(image, 0, 0);
}

/** Bars of the expected values; the chosen action is marked. */
function Values({ actions, step }) {
  const low = Math.min(...step.q),
    high = Math.max(...step.q),
    range = high - low || 1;
  return html`<ol class="bars values" aria-label="Expected value of each action">
    ${actions.map(
      (name, index) =>
        html`<li key=${name} class=${name === step.action ? "best" : ""}>
          <span>${name.toLowerCase()}</span
          ><progress
            max="1"
            value=${0.04 + (0.96 * (step.q[index] - low)) / range}
            aria-label=${name}
          /><b>${step.q[index].toFixed(2)}</b>
        </li>`,
    )}
  </ol>`;
}
