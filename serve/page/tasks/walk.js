// Walks through a generator's latents: an animation that returns to its first picture.
import { html, useEffect, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress, whole } from "../lib/address.js";
import { ask } from "../lib/api.js";
import { fileName } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { Picture } from "../parts/picture.js";
import { routeSnippets, Snippets } from "../parts/snippet.js";

const MOST_SEED = 2 ** 31 - 1;

export function Walk({ model, service }) {
  const address = useAddress();
  const [seed, setSeed] = useState(Math.min(MOST_SEED, whole(address.seed, 0)));
  const [stops, setStops] = useState(Math.min(8, Math.max(2, whole(address.stops, 4))));
  const [frames, setFrames] = useState(Math.min(32, Math.max(2, whole(address.frames, 16))));
  const [clip, setClip] = useState(null); // {src, alt, caption, name}: what is shown, not what is set
  const work = useWork();
  const path = `api/walk/${encodeURIComponent(model.id)}?seed=${seed}&stops=${stops}&frames=${frames}`;

  function start() {
    note({ seed, stops, frames });
    setClip(null);
    work.run(async ({ signal }) =>
      setClip({
        src: URL.createObjectURL(await (await ask(path, { signal })).blob()),
        alt: `${model.id}: a walk from seed ${seed}`,
        caption: `A walk of ${stops * frames} pictures from seed ${seed}`,
        name: fileName(model.id, "walk", seed) + ".gif",
      }),
    );
  }
  useEffect(start, [model.id, model.version, seed]);

  return html`<div class="task result-first">
    <form
      class="controls"
      onSubmit=${(event) => {
        event.preventDefault();
        start();
      }}
    >
      <label
        >Seed
        <input
          type="number"
          name="seed"
          min="0"
          max=${MOST_SEED}
          value=${seed}
          onChange=${(event) => setSeed(Math.min(MOST_SEED, whole(event.target.value, 0)))}
      /></label>
      <label
        >Stops <output>${stops}</output>
        <input
          type="range"
          min="2"
          max="8"
          value=${stops}
          onInput=${(event) => setStops(Number(event.target.value))}
        />
        <small>Pictures that the walk passes before it returns to the first.</small></label
      >
      <label
        >Pictures between two stops <output>${frames}</output>
        <input
          type="range"
          min="2"
          max="32"
          value=${frames}
          onInput=${(event) => setFrames(Number(event.target.value))}
      /></label>
      <div class="buttons">
        <button disabled=${work.busy}>Walk</button>
        <button
          type="button"
          class="secondary"
          disabled=${work.busy}
          onClick=${() => setSeed(Math.floor(Math.random() * 1e6))}
        >
          Surprise me
        </button>
      </div>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Working} work=${work} what="Walking" />
      <${Problem} work=${work} />
      <${Picture}
        src=${clip?.src}
        alt=${clip?.alt}
        pixel
        caption=${clip?.caption}
        name=${clip?.name}
      />
    </div>
    <${Snippets} programs=${routeSnippets(path, { save: "walk.gif", login: service.login })} />
  </div>`;
}
