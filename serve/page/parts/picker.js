// Chooses an input picture: an example, a file, a dropped or a pasted picture, or a drawing.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { blobOf, getJson, png } from "../lib/api.js";
import { useLoaded } from "../lib/work.js";
import { Strip } from "./picture.js";

const TYPES = "image/png,image/jpeg,image/webp";

/** A chosen picture: {blob, url, name, example}. `example` is its name in the address, or empty. */
export const chosen = (blob, name, example = "") => ({
  blob,
  url: URL.createObjectURL(blob),
  name,
  example,
});

/** Loads the service's example pictures; `kind`: "photograph", "pattern" or "" for all. */
export function useExamples(kind) {
  const { value } = useLoaded((signal) => getJson("api/examples", { signal }), []);
  return (value?.examples ?? [])
    .filter((each) => !kind || each.kind === kind)
    .map((each) => ({
      ...each,
      src: `api/examples/${each.name}?size=128`,
      full: `api/examples/${each.name}`,
    }));
}

/** Loads pictures that a model was not trained on; none if its data are not on the server. */
export function useTestPictures(model) {
  const path = `api/pictures/${encodeURIComponent(model.id)}?count=12&version=${model.version}`;
  const { value, error } = useLoaded(
    (signal) => getJson(path, { signal }),
    [model.id, model.version],
  );
  const pictures = (value?.pictures ?? []).map((each, index) => ({
    name: `test-${index}`,
    title: each.label ?? `picture ${index + 1}`,
    src: png(each.b64_json),
    credit: value.credit,
  }));
  return { pictures, texts: value?.texts ?? [], loaded: value !== null || error !== "" };
}

/** Fetches an example as a chosen picture. */
export async function pickExample(example) {
  return chosen(await blobOf(example.full ?? example.src), example.title, example.name);
}

/**
 * The picker. `value`: the chosen picture or null. `onPick(picture)`: called with the new one.
 * `examples`: {name, title, src, credit} each. `pixel`: the pictures are small.
 */
export function Picker({
  title,
  value,
  onPick,
  examples = [],
  pixel = false,
  disabled = false,
  children,
}) {
  const [over, setOver] = useState(false);
  const [problem, setProblem] = useState("");
  const latest = useRef(onPick);
  latest.current = onPick;

  function take(file) {
    if (!file) return;
    const right = TYPES.split(",").includes(file.type);
    setProblem(right ? "" : `${file.name || "The file"} is not a PNG, JPEG or WebP picture.`);
    if (right) latest.current(chosen(file, file.name || "pasted picture"));
  }

  useEffect(() => {
    const paste = (event) =>
      take([...event.clipboardData.files].find((file) => file.type.startsWith("image/")));
    document.addEventListener("paste", paste);
    return () => document.removeEventListener("paste", paste);
  }, []);

  const stop = (event) => event.preventDefault();
  const credits = [...new Set(examples.map((each) => each.credit).filter(Boolean))];
  return html`<fieldset class="picker" disabled=${disabled}>
    <legend>${title}</legend>
    <label
      class=${over ? "drop over" : "drop"}
      onDragEnter=${(event) => {
        stop(event);
        setOver(true);
      }}
      onDragOver=${stop}
      onDragLeave=${() => setOver(false)}
      onDrop=${(event) => {
        stop(event);
        setOver(false);
        take(event.dataTransfer.files[0]);
      }}
    >
      ${value && html`<img class=${pixel ? "pixel" : ""} src=${value.url} alt=${`${title}: ${value.name}`} />`}
      <span>${value ? "Choose another file" : "Choose a file"}, drop one here, or paste one</span>
      <input
        type="file"
        class="sr-only"
        accept=${TYPES}
        aria-label=${`${title}: choose a file`}
        onChange=${(event) => take(event.target.files[0])}
      />
    </label>
    <p class="error" aria-live="polite">${problem}</p>
    ${children}
    <${Strip}
      label=${`Examples: ${title}`}
      pixel=${pixel}
      pictures=${examples.map((each) => ({ ...each, key: each.name, alt: each.title, chosen: each.name === value?.example }))}
      onPick=${(each) =>
        pickExample(each).then(
          (picture) => latest.current(picture),
          (error) => setProblem(error.message),
        )}
    />
    ${
      credits.length > 0 &&
      html`<details class="credit">
        <summary>Credits of the examples</summary>
        ${credits.map((each) => html`<p>${each}</p>`)}
      </details>`
    }
  </fieldset>`;
}
