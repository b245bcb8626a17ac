// A form with an input picture, and what a route of the service answers to it.
import { html, useEffect, useState } from "../vendor/htm-preact-standalone.module.js";
import { note, useAddress } from "../lib/address.js";
import { getJson } from "../lib/api.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { canDraw, DrawPad } from "./draw.js";
import { pickExample, Picker } from "./picker.js";
import { routeSnippets, Snippets } from "./snippet.js";

/**
 * Asks at once when a picture is chosen, and first with the example that the address names.
 * `path`: the route. `title`, `verb` and `doing`: texts of the picker, the button and the progress.
 * `show(answer, picture, pick)`: the elements for an answer; `pick(picture)` asks again.
 */
export function AskPicture({ model, service, path, title, verb, doing, examples, pixel, show }) {
  const address = useAddress();
  const [picture, setPicture] = useState(null);
  const [answer, setAnswer] = useState(null);
  const work = useWork();

  const start = (input) =>
    work.run(async ({ signal }) => {
      const headers = { "Content-Type": input.blob.type || "image/png" };
      setAnswer(await getJson(path, { method: "POST", body: input.blob, headers, signal }));
    });

  function pick(next) {
    setAnswer(null);
    setPicture(next);
    note({ picture: next.example });
    start(next);
  }

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
      <${Picker} title=${title} value=${picture} onPick=${pick} examples=${examples} pixel=${pixel}>
        ${canDraw(model) && html`<${DrawPad} onPick=${pick} />`}
      <//>
      <button disabled=${work.busy || !picture}>${verb}</button>
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Working} work=${work} what=${doing} />
      <${Problem} work=${work} />
      ${answer && show(answer, picture, pick)}
    </div>
    <${Snippets} programs=${routeSnippets(path, { file: "picture.png", login: service.login })} />
  </div>`;
}
