// Finds what is most similar to a picture or a text, by the distance of the model's codes.
import { html, useEffect, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress } from "../lib/address.js";
import { getJson, png } from "../lib/api.js";
import { isText } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { AskPicture } from "../parts/ask.js";
import { pickExample, useExamples, useTestPictures } from "../parts/picker.js";
import { Strip } from "../parts/picture.js";
import { routeSnippets, Snippets } from "../parts/snippet.js";

const COUNT = 12;
const pathOf = (model) => `api/retrieve/${encodeURIComponent(model.id)}?count=${COUNT}`;

export function Find(props) {
  return isText(props.model)
    ? html`<${FindText} ...${props} />`
    : html`<${FindPicture} ...${props} />`;
}

/** The text below a neighbour: its class, or the name of its file without folder and ending. */
function nameOf(neighbour) {
  const file = neighbour.name
    ?.split("/")
    .pop()
    .replace(/\.\w+$/, "");
  return neighbour.label ?? file ?? `row ${neighbour.row}`;
}

function FindPicture({ model, service }) {
  const all = useExamples(""),
    test = useTestPictures(model);
  const isPhotographs = model.kind === "photographs";
  const examples = isPhotographs
    ? [...test.pictures, ...all]
    : test.pictures.length
      ? test.pictures
      : test.loaded
        ? all
        : [];

  // A click on a neighbour asks for what is similar to that neighbour.
  const show = (found, _, pick) =>
    html`<h2>
        Most similar first
        <small>choose one to search on from there; the number is the distance</small>
      </h2>
      <${Strip}
        pictures=${found.neighbours.map((each) => ({
          key: each.row,
          name: "",
          title: nameOf(each),
          src: png(each.b64_json),
          alt: `${nameOf(each)}, distance ${each.distance.toFixed(2)}: find what is similar to it`,
          caption: `${nameOf(each)} · ${each.distance.toFixed(2)}`,
        }))}
        label="Neighbours, most similar first"
        pixel=${!isPhotographs}
        large
        onPick=${(each) => pickExample(each).then(pick)}
      />`;
  return html`<${AskPicture}
    model=${model}
    service=${service}
    path=${pathOf(model)}
    title="Picture to compare with"
    verb="Find similar"
    doing="Searching"
    examples=${examples}
    pixel=${!isPhotographs}
    show=${show}
  />`;
}

function FindText({ model, service }) {
  const address = useAddress();
  const test = useTestPictures(model);
  const [text, setText] = useState(address.text ?? "");
  const [found, setFound] = useState(null);
  const work = useWork();

  function start(query) {
    setText(query);
    setFound(null);
    note({ text: query.slice(0, 500) });
    const headers = { "Content-Type": "text/plain" };
    work.run(async ({ signal }) =>
      setFound(await getJson(pathOf(model), { method: "POST", body: query, headers, signal })),
    );
  }
  useEffect(() => {
    if (text) start(text);
  }, []);

  return html`<div class="task">
    <form
      class="controls"
      onSubmit=${(event) => {
        event.preventDefault();
        start(text);
      }}
    >
      <label
        >Text to compare with
        <textarea
          rows="5"
          required
          maxlength="50000"
          value=${text}
          placeholder="open a socket and read lines from it"
          onInput=${(event) => {
            setText(event.target.value);
            setFound(null);
          }}
        />
      </label>
      <button disabled=${work.busy || !text.trim()}>Find similar</button>
      ${
        test.texts.length > 0 &&
        html`<p class="hint">Or try one of these titles:</p>
          <ul class="chips">
            ${test.texts
              .slice(0, 8)
              .map(
                (each) =>
                  html`<li key=${each}>
                    <button
                      type="button"
                      class="outline small"
                      onClick=${() => start(each.replace(/[._]/g, " "))}
                    >
                      ${each}
                    </button>
                  </li>`,
              )}
          </ul>`
      }
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Working} work=${work} what="Searching" />
      <${Problem} work=${work} />
      ${
        found &&
        html`<h2>Most similar texts</h2>
          <p class="hint">Understood words: ${(found.query.words ?? []).join(", ")}</p>
          <ol class="texts">
            ${found.neighbours.map(
              (each) =>
                html`<li key=${each.row}>
                  <b>${each.name ?? `row ${each.row}`}</b>
                  ${each.label && html` <span class="chip">${each.label}</span>`}<small>
                    distance ${each.distance.toFixed(3)}</small
                  >
                </li>`,
            )}
          </ol>`
      }
    </div>
    <${Snippets}
      programs=${routeSnippets(pathOf(model), { file: text || "open a socket", type: "text/plain", login: service.login })}
    />
  </div>`;
}
