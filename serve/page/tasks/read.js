// Reads one picture: says what it shows (classify), or compresses and restores it (rebuild).
import { html } from "../vendor/htm-preact-standalone.module.js";
import { png } from "../lib/api.js";
import { fileName } from "../lib/names.js";
import { AskPicture } from "../parts/ask.js";
import { useExamples, useTestPictures } from "../parts/picker.js";
import { Picture } from "../parts/picture.js";

const MOST_BARS = 10;

/** A form with the model's own test pictures as examples, and the answer of a route. */
function Read({ model, service, route, doing, verb, show }) {
  const photographs = useExamples("photograph"),
    test = useTestPictures(model);
  return html`<${AskPicture}
    model=${model}
    service=${service}
    path=${`api/${route}/${encodeURIComponent(model.id)}`}
    title="Picture"
    verb=${verb}
    doing=${doing}
    examples=${test.pictures.length ? test.pictures : test.loaded ? photographs : []}
    pixel=${test.pictures.length > 0}
    show=${show}
  />`;
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
