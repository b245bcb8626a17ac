// Changes a photograph, e.g. paints it with a style model.
import { html, useEffect, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress, whole } from "../lib/address.js";
import { ask, lines, png, Refused } from "../lib/api.js";
import { fileName } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { MaskPad } from "../parts/mask.js";
import { Compare, Picture } from "../parts/picture.js";
import { pickExample, Picker, useExamples } from "../parts/picker.js";
import { editSnippets, Snippets } from "../parts/snippet.js";

const SIZES = [256, 384, 512, 768, 1024];

/** Sends the form to /api/edits and returns the last line, the answer; `mask`: a PNG, or null. */
export async function edit(fields, pictures, { signal, progress }, mask = null) {
  const form = new FormData();
  if (mask) form.append("mask", mask, "mask.png");
  for (const picture of pictures) form.append("image", picture.blob, "picture");
  for (const [name, value] of Object.entries(fields)) form.append(name, value);
  const answer = await ask("api/edits", { method: "POST", body: form, signal });
  for await (const line of lines(answer)) {
    if (line.error) throw new Refused(line.error.message, 400);
    if (line.b64_json) return line;
    if (line.waiting)
      progress({ text: `Waiting for ${line.waiting} other request${line.waiting > 1 ? "s" : ""}` });
    if ("done" in line) progress({ text: "", done: line.done, of: line.of });
  }
  throw new Refused(
    "The service ended the work. A smaller size or fewer steps take less time.",
    408,
  );
}

/** The picture that the address names, or the first example. */
function useFirstExample(examples, name, picture, onPick) {
  useEffect(() => {
    const example = examples.find((each) => each.name === name) ?? examples[0];
    if (!picture && example) pickExample(example).then(onPick, () => {});
  }, [examples.length]);
}

export function Edit({ model, service, verb, doing, styles = false, fields, settings, children }) {
  const address = useAddress();
  const photographs = useExamples("photograph"),
    patterns = useExamples("pattern");
  const [photo, setPhoto] = useState(null);
  const [style, setStyle] = useState(null);
  const [partly, setPartly] = useState(false);
  const [mask, setMask] = useState(null);
  const [size, setSize] = useState(whole(address.size, 512));
  const [result, setResult] = useState("");
  const work = useWork();
  const sizes = SIZES.filter((each) => each <= service.limits.max_side);
  const all = { model: model.id, size: `${size}x${size}`, ...fields };

  // A new picture or another setting makes the shown result outdated.
  const outdated = (set) => (value) => {
    work.cancel();
    setResult("");
    set(value);
  };
  useFirstExample(photographs, address.photo, photo, setPhoto);
  useFirstExample(styles ? patterns : [], address.style, style, setStyle);
  useEffect(
    () => note({ ...settings, size, photo: photo?.example, style: styles ? style?.example : "" }),
    [JSON.stringify(settings), size, photo, style],
  );
  useEffect(() => {
    work.cancel();
    setResult("");
  }, [JSON.stringify(fields), partly, mask]);

  function start(event) {
    event.preventDefault();
    setResult("");
    work.run(async (tools) => {
      const answer = await edit(all, styles ? [photo, style] : [photo], tools, partly ? mask : null);
      setResult(png(answer.b64_json));
    });
  }

  const alt = `${photo?.name ?? "picture"}, ${doing.toLowerCase()} by ${model.id}`;
  return html`<div class="task">
    <form class="controls" onSubmit=${start}>
      <${Picker}
        title="Photograph"
        value=${photo}
        onPick=${outdated(setPhoto)}
        examples=${photographs}
        disabled=${work.busy}
      />
      ${styles && html`<${Picker} title="Style" value=${style} onPick=${outdated(setStyle)} examples=${patterns} disabled=${work.busy} />`}
      ${children}
      <label
        ><input
          type="checkbox"
          role="switch"
          checked=${partly}
          onChange=${(event) => setPartly(event.target.checked)}
        />
        Only a part of the photograph</label
      >
      ${partly && photo && html`<${MaskPad} key=${photo.url} picture=${photo} onMask=${setMask} />`}
      <label
        >Longer side in pixels
        <select value=${size} onChange=${(event) => outdated(setSize)(Number(event.target.value))}>
          ${sizes.map((each) => html`<option value=${each}>${each}</option>`)}
        </select></label
      >
      <button disabled=${work.busy || !photo || (styles && !style) || (partly && !mask)}>${verb}</button>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      ${
        !result &&
        photo &&
        html`<figure class="result waiting">
          <img src=${photo.url} alt=${`before: ${photo.name}`} />
          <figcaption>${work.busy ? `${doing}…` : `Before. Press “${verb}”.`}</figcaption>
        </figure>`
      }
      <${Working} work=${work} what=${doing} />
      <${Problem} work=${work} />
      ${
        result &&
        html`<${Picture}
            src=${result}
            alt=${alt}
            caption="After"
            shares=${Boolean(photo?.example)}
            name=${fileName(model.id, photo.name, settings.seed ?? "") + ".png"}
          />
          <h2>Before and after</h2>
          <${Compare} before=${photo.url} after=${result} alt=${alt} />`
      }
    </div>
    <${Snippets}
      programs=${editSnippets(all, styles ? ["photo.jpg", "style.jpg"] : ["photo.jpg"], service.login, partly)}
    />
  </div>`;
}

/** Applies a style model: a fixed style, or the style of a second picture. */
export function Paint({ model, service }) {
  const address = useAddress();
  const [alpha, setAlpha] = useState(Math.min(1, Number(address.alpha ?? 1)) || 1);
  const [keep, setKeep] = useState(address.keep_colours === "true");
  return html`<${Edit}
    model=${model}
    service=${service}
    verb="Paint"
    doing="Painting"
    styles=${model.kind === "style_any"}
    fields=${{ alpha: String(alpha), keep_colours: String(keep) }}
    settings=${{ alpha: alpha === 1 ? "" : alpha, keep_colours: keep ? "true" : "" }}
  >
    <label
      >Strength of the style <output>${Math.round(100 * alpha)} %</output>
      <input
        type="range"
        min="0.05"
        max="1"
        step="0.05"
        value=${alpha}
        onInput=${(event) => setAlpha(Number(event.target.value))}
    /></label>
    <label
      ><input
        type="checkbox"
        role="switch"
        checked=${keep}
        onChange=${(event) => setKeep(event.target.checked)}
      />
      Keep the photograph's colours</label
    >
  <//>`;
}
