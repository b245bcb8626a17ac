// Generates pictures: a large one of a seed, the next twelve seeds, and sliders for the latents.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress, whole } from "../lib/address.js";
import { png, postJson } from "../lib/api.js";
import { fileName } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { Picture, Strip } from "../parts/picture.js";
import { generationSnippets, Snippets } from "../parts/snippet.js";
import { changesIn, changesText, Sliders, useLatents } from "./sliders.js";

const NEXT = 12;
const LARGE = 512; // the picture's preferred side in pixels

/** The sizes that a model can draw: whole multiples of its own size. */
function sizesOf(model, most) {
  const [, height, width] = model.about.shape;
  return [1, 2, 4, 8, 16, 32, 64]
    .filter((factor) => factor * Math.max(width, height) <= most)
    .map((factor) => `${factor * width}x${factor * height}`);
}

function usualSize(model, sizes) {
  const wanted = sizes.filter((size) => Math.max(...size.split("x").map(Number)) <= LARGE);
  return wanted[wanted.length - 1] ?? sizes[0];
}

export function Generate({ model, service }) {
  const settings = useAddress();
  const sizes = sizesOf(model, service.limits.max_side);
  const [seed, setSeed] = useState(whole(settings.seed, 0));
  const [size, setSize] = useState(
    sizes.includes(settings.size) ? settings.size : usualSize(model, sizes),
  );
  const [changes, setChanges] = useState(changesIn(settings.z));
  const [large, setLarge] = useState(null); // {src, caption, name}: what is shown, not what is set
  const [next, setNext] = useState([]);
  const [typed, setTyped] = useState(String(seed));
  const work = useWork(),
    sliding = useWork();
  const latents = useLatents(model, seed);
  const byHand = Object.keys(changes).length > 0 && latents;

  const body = byHand
    ? {
        model: model.id,
        n: 1,
        size,
        latent: [latents.latent.map((value, index) => changes[index] ?? value)],
      }
    : { model: model.id, n: 1, size, seed };

  function show(made, changed) {
    setLarge({
      src: png(made.data[0].b64_json),
      caption: changed ? `Seed ${seed}, changed by hand` : `Seed ${seed}`,
      name: fileName(model.id, "seed", seed, changed ? "changed" : size) + ".png",
    });
  }

  // Draw the seed's picture, then the pictures of the next seeds.
  useEffect(() => {
    setTyped(String(seed));
    work.run(async ({ signal }) => {
      if (!Object.keys(changes).length) {
        const made = await postJson(
          "v1/images/generations",
          { model: model.id, n: 1, seed, size },
          { signal },
        );
        show(made, false);
      }
      const more = await postJson(
        "v1/images/generations",
        {
          model: model.id,
          n: Math.min(NEXT, service.limits.max_images),
          seed: seed + 1,
          size: sizes[Math.min(1, sizes.length - 1)],
        },
        { signal },
      );
      setNext(
        more.data.map((each, index) => ({
          key: seed + 1 + index,
          seed: seed + 1 + index,
          src: png(each.b64_json),
          alt: `Take seed ${seed + 1 + index}`,
          caption: `${seed + 1 + index}`,
        })),
      );
    });
  }, [model.id, model.version, seed, size]);

  // A slider moves dozens of times a second: one request runs at a time, the last position wins.
  const waiting = useRef(false);
  useEffect(() => {
    note({ seed, size: size === usualSize(model, sizes) ? "" : size, z: changesText(changes) });
    if (!byHand) return;
    if (sliding.busy) {
      waiting.current = true;
      return;
    }
    waiting.current = false;
    sliding.run(async () => {
      const made = await postJson("v1/images/generations", body);
      show(made, true);
    });
  }, [changes, seed, size, latents]);
  useEffect(() => {
    if (!sliding.busy && waiting.current) setChanges({ ...changes });
  }, [sliding.busy]);

  function take(other) {
    setChanges({});
    if (other === seed) redraw();
    else setSeed(other);
  }

  // The seed's own picture again, after the sliders have changed it.
  function redraw() {
    setTyped(String(seed));
    work.run(async ({ signal }) => {
      const made = await postJson(
        "v1/images/generations",
        { model: model.id, n: 1, seed, size },
        { signal },
      );
      show(made, false);
    });
  }

  return html`<div class="task result-first">
    <form
      class="controls"
      onSubmit=${(event) => {
        event.preventDefault();
        take(whole(typed, seed));
      }}
    >
      <label
        >Seed
        <input
          type="number"
          name="seed"
          min="0"
          max="999999999999999"
          inputmode="numeric"
          value=${typed}
          onInput=${(event) => setTyped(event.target.value)}
          aria-describedby="seed-help"
        />
        <small id="seed-help">The same seed always draws the same picture.</small></label
      >
      <div class="buttons">
        <button disabled=${work.busy}>Generate</button>
        <button
          type="button"
          class="secondary"
          disabled=${work.busy}
          onClick=${() => take(Math.floor(Math.random() * 1e6))}
        >
          Surprise me
        </button>
      </div>
      <label
        >Size in pixels
        <select value=${size} onChange=${(event) => setSize(event.target.value)}>
          ${sizes.map((each) => html`<option value=${each}>${each.replace("x", " × ")}</option>`)}
        </select></label
      >
      ${latents && html`<${Sliders} latents=${latents} changes=${changes} onChange=${setChanges} onReset=${() => take(seed)} />`}
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Picture}
        src=${large?.src}
        alt=${`${model.id}: ${large?.caption}`}
        caption=${large?.caption}
        pixel
        name=${large?.name}
      />
      <${Working} work=${work} what="Drawing" />
      <${Problem} work=${work} /><${Problem} work=${sliding} />
      ${next.length > 0 && html`<h2>The next seeds <small>choose one to take it</small></h2>`}
      <${Strip}
        pictures=${next}
        label="Pictures of the next seeds"
        onPick=${(each) => take(each.seed)}
      />
    </div>
    <${Snippets} programs=${generationSnippets(body, service.login)} />
  </div>`;
}
