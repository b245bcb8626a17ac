// Lets a network dream on a photograph.
import { html, useState } from "../vendor/htm-preact-standalone.module.js";
import { useAddress, whole } from "../lib/address.js";
import { getJson } from "../lib/api.js";
import { useLoaded } from "../lib/work.js";
import { Edit } from "./edit.js";

/** Lets a network amplify what it sees: the layer and its channels choose the patterns. */
export function Dream({ model, service }) {
  const address = useAddress();
  const { value: layers, error } = useLoaded(
    (signal) => getJson(`api/layers/${encodeURIComponent(model.id)}`, { signal }),
    [model.id],
  );
  const [layer, setLayer] = useState(address.layer ?? "");
  const [channels, setChannels] = useState(address.channels ?? "");
  const [steps, setSteps] = useState(Math.min(service.limits.max_steps, whole(address.steps, 12)));
  const [seed, setSeed] = useState(whole(address.seed, 0));
  const width =
    layers?.layers.find((each) => each.name === (layer || layers.default))?.channels ?? 1;
  const fields = {
    layer,
    steps: String(steps),
    seed: String(seed),
    ...(channels ? { channels } : {}),
  };
  const random = () => setChannels(String(Math.floor(Math.random() * width)));
  return html`<${Edit}
    model=${model}
    service=${service}
    verb="Dream"
    doing="Dreaming"
    fields=${fields}
    settings=${{ layer, channels, steps, seed: seed || "" }}
  >
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <label
      >Layer
      <select
        value=${layer}
        onChange=${(event) => {
          setLayer(event.target.value);
          setChannels("");
        }}
      >
        <option value="">usual (${layers?.default ?? "…"})</option>
        ${(layers?.layers ?? []).map((each) => html`<option value=${each.name}>${each.name} · ${each.channels} channels</option>`)}</select
      ><small
        >Early layers dream of lines and textures, late layers of parts of things.</small
      ></label
    >
    <label
      >Channels
      <span class="joined"
        ><input
          type="text"
          value=${channels}
          placeholder="all"
          pattern="[0-9 ,]*"
          inputmode="numeric"
          aria-describedby="channels-help"
          onChange=${(event) => setChannels(event.target.value.trim())}
        />
        <button type="button" class="secondary" onClick=${random}>Random</button></span
      >
      <small id="channels-help"
        >0 to ${width - 1}, separated by commas. One channel gives one kind of pattern.</small
      ></label
    >
    <label
      >Steps at each size <output>${steps}</output>
      <input
        type="range"
        min="1"
        max=${Math.min(48, service.limits.max_steps)}
        value=${steps}
        onInput=${(event) => setSteps(Number(event.target.value))}
    /></label>
    <label
      >Seed
      <input
        type="number"
        min="0"
        max="2147483647"
        value=${seed}
        onChange=${(event) => setSeed(whole(event.target.value, 0))}
    /></label>
  <//>`;
}
