// Sliders for the latents of a generator, those with the largest measured effect first.
import { html } from "../vendor/htm-preact-standalone.module.js";
import { getJson } from "../lib/api.js";
import { useLoaded } from "../lib/work.js";

const FIRST = 8;

/** Loads the latents of a seed and their effects; null while they load or if there are none. */
export function useLatents(model, seed) {
  const walks = model.kind !== "sprites"; // a sprite's latents have no single effect
  const path = `api/latents/${encodeURIComponent(model.id)}?seed=${seed}`;
  const { value } = useLoaded(
    (signal) => (walks ? getJson(path, { signal }) : Promise.resolve(null)),
    [model.id, model.version, seed],
  );
  return value;
}

/** Changed latents as a text for the address, e.g. "17:1.20,3:-0.5", and back. */
export const changesText = (changes) =>
  Object.entries(changes)
    .map(([index, value]) => `${index}:${value}`)
    .join(",");

export function changesIn(text) {
  const pairs = (text ?? "").split(",").map((pair) => pair.split(":").map(Number));
  return Object.fromEntries(
    pairs.filter(([index, value]) => Number.isInteger(index) && Number.isFinite(value)),
  );
}

/**
 * The sliders. `latents`: see /api/latents. `changes`: values by the latent's number, for latents
 * that the user has moved. `onReset()`: back to the seed's own values.
 */
export function Sliders({ latents, changes, onChange, onReset }) {
  const largest = Math.max(...latents.effect) || 1;
  const slider = (index) =>
    html`<${Slider}
      key=${index}
      index=${index}
      reach=${latents.reach}
      value=${changes[index] ?? latents.latent[index]}
      effect=${latents.effect[index] / largest}
      onInput=${(value) => onChange({ ...changes, [index]: value })}
    />`;
  const first = latents.order.slice(0, FIRST),
    rest = latents.order.slice(FIRST);
  return html`<fieldset class="sliders">
    <legend>Change it by hand</legend>
    <p class="hint">
      Each slider is a direction that the model has learned. Those that change the picture most come
      first.
    </p>
    ${first.map(slider)}
    ${
      rest.length > 0 &&
      html`<details>
        <summary>${rest.length} more directions with smaller effects</summary>
        ${rest.map(slider)}
      </details>`
    }
    <button
      type="button"
      class="outline secondary small"
      disabled=${!Object.keys(changes).length}
      onClick=${onReset}
    >
      Back to the seed's values
    </button>
  </fieldset>`;
}

function Slider({ index, value, reach, effect, onInput }) {
  const shown = Math.max(-reach, Math.min(reach, value));
  return html`<label class="slider">
    <span>Direction ${index + 1}</span>
    <meter
      min="0"
      max="1"
      value=${effect}
      title=${`effect ${Math.round(100 * effect)} % of the largest`}
      aria-hidden="true"
    />
    <input
      type="range"
      min=${-reach}
      max=${reach}
      step="0.05"
      value=${shown}
      aria-label=${`Direction ${index + 1}, effect ${Math.round(100 * effect)} percent of the largest`}
      onInput=${(event) => onInput(Number(event.target.value))}
    />
    <output>${value.toFixed(2)}</output>
  </label>`;
}
