// Plays inside a world model: the game runs in the network, from a real screen, by keys, touch or a
// gamepad, or by an agent.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
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
  const [agent, setAgent] = useState(""); // which agent plays; "": a person
  const [chosen, setChosen] = useState("");
  const [rate, setRate] = useState(0);
  const canvas = useRef(null),
    socket = useRef(null),
    action = useRef(0);
  const work = useWork();

  function begin(event) {
    event.preventDefault();
    note({ start, seed, fps: speed === 15 ? "" : speed });
    setEnd("");
    setAgent("");
    setRate(0);
    const drawn = [];
    canvas.current.focus();
    const path = `api/worlds/${encodeURIComponent(model.id)}?start=${start}&seed=${seed}&fps=${speed}`;
    action.current = 0;
    work.run(async ({ signal }) => {
      const game = open(path, async (line) => {
        if (line.actions) setAbout(line);
        if (line.end) return setEnd(line.end);
        await show(canvas.current, line.png);
        setRate(perSecond(drawn, performance.now()));
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

  const starts = about?.starts ?? model.about.starts ?? 32,
    agents = about?.agents ?? [],
    pilot = agents.includes(chosen) ? chosen : agents[0];

  /** Hands over to the agent, or back to the player. */
  function handOver() {
    const next = agent ? "" : pilot;
    socket.current?.send({ agent: next });
    setAgent(next);
  }

  const latest = useRef(handOver);
  latest.current = handOver; // the listener below outlives a rendering
  useEffect(() => {
    if (!work.busy || !pilot) return undefined;
    const key = (event) => {
      if (event.key !== "m" || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
      if (!event.target.closest?.("input, select, textarea")) latest.current();
    };
    window.addEventListener("keydown", key);
    return () => window.removeEventListener("keydown", key);
  }, [work.busy, pilot]);

  return html`<div class="task result-first">
    <form class="controls" onSubmit=${begin}>
      <label
        >Real screen to start from
        <input
          type="number"
          name="start"
          min="0"
          max=${starts - 1}
          value=${start}
          onInput=${(event) => setStart(whole(event.target.value, 0))}
        />
        <small>The model keeps ${starts} moments of real games.</small></label
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
      ${
        agents.length > 1 &&
        html`<label
          >Agent
          <select
            value=${pilot}
            disabled=${Boolean(agent)}
            onChange=${(event) => setChosen(event.target.value)}
          >
            ${agents.map((name) => html`<option value=${name}>${name}</option>`)}
          </select></label
        >`
      }
      ${
        pilot &&
        html`<button
          type="button"
          class="secondary outline hand-over"
          title="The key m does the same."
          disabled=${!work.busy}
          onClick=${handOver}
        >
          ${agent ? "Play yourself (m)" : `Let ${pilot} play (m)`}
        </button>`
      }
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
        <figcaption>${caption(step, end, work.busy, rate)}</figcaption>
      </figure>
      <${Joystick} active=${work.busy} actions=${about?.actions ?? []} change=${change} />
      <p class=${step && step.known === false ? "likely lost" : "likely"}>${likely(step, about)}</p>
      ${!step && html`<p class="hint">${INVITATION}</p>`}
    </div>
  </div>`;
}

function caption(step, end, busy, rate) {
  if (!step) return "";
  const speed = rate ? `· ${rate} screens a second` : "",
    state = end || (busy ? speed : "Stopped.");
  const lives = step.lives_lost ? `, ${step.lives_lost} lost` : "";
  const who = step.agent ? ` · ${step.agent} plays` : "";
  const score = Number(step.score.toPrecision(6)); // rewards of own games may be fractions
  return `${step.step} steps since reality · score ${score}${lives}${who} ${state}`;
}

/** Screens a second, of those drawn in the last two seconds; 0 in the first one. `drawn` is kept. */
function perSecond(drawn, now) {
  drawn.push(now);
  while (now - drawn[0] > 2000) drawn.shift();
  const seconds = (now - drawn[0]) / 1000;
  return seconds < 1 ? 0 : Math.round((drawn.length - 1) / seconds);
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
