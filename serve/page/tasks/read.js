// Reads one picture: says what it shows (classify), or compresses and restores it (rebuild).
import { html, useEffect, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress } from "../lib/address.js";
import { getJson, png } from "../lib/api.js";
import { fileName } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { canDraw, DrawPad } from "../parts/draw.js";
import { pickExample, Picker, useExamples, useTestPictures } from "../parts/picker.js";
import { Picture } from "../parts/picture.js";
import { routeSnippets, Snippets } from "../parts/snippet.js";

const MOST_BARS = 10;

/** A picker of an input picture with the model's own test pictures, and the answer of a route. */
function Read({ model, service, route, doing, verb, show }) {
  const address = useAddress();
  const photographs = useExamples("photograph"),
    test = useTestPictures(model);
  const [picture, setPicture] = useState(null);
  const [answer, setAnswer] = useState(null);
  const work = useWork();
  const path = `api/${route}/${encodeURIComponent(model.id)}`;
  const examples = test.pictures.length ? test.pictures : test.loaded ? photographs : [];

  function pick(next) {
    setAnswer(null);
    setPicture(next);
    note({ picture: next.example });
    start(next);
  }

  const start = (input) =>
    work.run(async ({ signal }) => {
      const headers = { "Content-Type": input.blob.type || "image/png" };
      setAnswer(await getJson(path, { method: "POST", body: input.blob, headers, signal }));
    });

  useEffect(() => {
    const first = examples.find((each) => each.name === address.picture) ?? examples[0];
    if (!picture && first) pickExample(first).then(pick, () => {});
  }, [examples.length]);

  return html`<div class="task">
    <form
      class="controls"
      onSubmit=${(event) => {
        event.preventDefault();
        start(picture);
      }}
    >
      <${Picker}
        title="Picture"
        value=${picture}
        onPick=${pick}
        examples=${examples}
        pixel=${test.pictures.length > 0}
      >
        ${canDraw(model) && html`<${DrawPad} onPick=${pick} />`}
      <//>
      <button disabled=${work.busy || !picture}>${verb}</button>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Working} work=${work} what=${doing} />
      <${Problem} work=${work} />
      ${answer && show(answer, picture)}
    </div>
    <${Snippets} programs=${routeSnippets(path, { file: "picture.png", login: service.login })} />
  </div>`;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function Bars({ classes }) {
  return html`<ol class="bars" aria-label="Classes by probability">
    ${classes
      .slice(0, MOST_BARS)
      .map(
        ({ label, probability }, index) =>
          html`<li key=${label} class=${index === 0 ? "best" : ""}>
            <span>${label}</span><progress max="1" value=${probability} aria-label=${label} /><b
              >${percent(probability)}</b
            >
          </li>`,
      )}
  </ol>`;
}

/** Says which class a picture belongs to. */
export function Classify(props) {
  return html`<${Read}
    ...${props}
    route="classify"
    verb="Recognise"
    doing="Reading"
    show=${({ query, classes }) =>
      html` <p class="verdict">
          This is <strong>${classes[0].label}</strong>, with ${percent(classes[0].probability)}
          probability.
        </p>
        <div class="side-by-side">
          <figure class="result small">
            <img class="pixel" src=${png(query.b64_json)} alt="What the model sees" />
            <figcaption>What the model sees</figcaption>
          </figure>
          <${Bars} classes=${classes} />
        </div>`}
  />`;
}

/** Encodes a picture in a few numbers, and decodes it again. */
export function Rebuild(props) {
  return html`<${Read}
    ...${props}
    route="reconstruct"
    verb="Rebuild"
    doing="Rebuilding"
    show=${(answer) =>
      html` <div class="side-by-side">
        <figure class="result small">
          <img
            class="pixel"
            src=${png(answer.query.b64_json)}
            alt="The picture as the model sees it"
          />
          <figcaption>Before</figcaption>
        </figure>
        <${Picture}
          src=${png(answer.b64_json)}
          alt="The picture, rebuilt"
          pixel
          shares=${false}
          caption=${`After. Mean squared error ${answer.mean_squared_error.toFixed(4)} (0: equal, 1: black for white)`}
          name=${fileName(props.model.id, "rebuilt") + ".png"}
        />
      </div>`}
  />`;
}
