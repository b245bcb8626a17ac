// Translates a picture with a pix2pix or CycleGAN model; of edges, also a drawing while it is made.
import { html, useState } from "../vendor/htm-preact-standalone.module.js";
import { useAddress } from "../lib/address.js";
import { png } from "../lib/api.js";
import { fileName, title } from "../lib/names.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { DrawPad } from "../parts/draw.js";
import { Picture } from "../parts/picture.js";
import { edit, Edit } from "./edit.js";

/** What a model's input is made of, in words. */
const INPUTS = { edges: "edges", grey: "grey values", low: "coarse pixels", masked: "a gap" };

/** Translates a photograph. */
export function Translate({ model, service }) {
  const address = useAddress();
  const { input, directions, domains } = model.about;
  const [direction, setDirection] = useState(
    directions.includes(address.direction) ? address.direction : directions[0],
  );
  const [prepare, setPrepare] = useState(input in INPUTS && address.prepare !== "false");
  const [a, b] = (domains ?? ["input", "result"]).map(title);
  return html`<${Edit}
    model=${model}
    service=${service}
    verb="Translate"
    doing="Translating"
    fields=${{ direction, prepare: String(prepare) }}
    settings=${{
      direction: direction === directions[0] ? "" : direction,
      prepare: input in INPUTS && !prepare ? "false" : "",
    }}
  >
    ${
      directions.length > 1 &&
      html`<label
        >Direction
        <select value=${direction} onChange=${(event) => setDirection(event.target.value)}>
          <option value="a_to_b">${a} → ${b}</option>
          <option value="b_to_a">${b} → ${a}</option>
        </select></label
      >`
    }
    ${
      input in INPUTS &&
      html`<label
        ><input
          type="checkbox"
          role="switch"
          checked=${prepare}
          onChange=${(event) => setPrepare(event.target.checked)}
        />
        Begin with the photograph's ${INPUTS[input]}</label
      >`
    }
  <//>`;
}

/** Translates a drawing after each stroke. */
export function Sketch({ model }) {
  const [result, setResult] = useState("");
  const work = useWork();
  const [, height, width] = model.about.shape;
  const fields = { model: model.id, size: `${width}x${height}` };

  const translate = (drawing) =>
    work.run(async (tools) => {
      const answer = await edit(fields, [drawing], tools);
      setResult(png(answer.b64_json));
    });

  return html`<div class="task">
    <form class="controls" onSubmit=${(event) => event.preventDefault()}>
      <${DrawPad}
        onPick=${translate}
        onClear=${() => setResult("")}
        ink="#000"
        paper="#fff"
        stroke=${280 / Math.max(width, height)}
        what="outlines"
      />
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      ${!result && !work.busy && html`<p>Draw outlines. The picture appears after each stroke.</p>`}
      ${!result && html`<${Working} work=${work} what="Translating" />`}
      <${Problem} work=${work} />
      <${Picture}
        src=${result}
        alt=${`your drawing, translated by ${model.id}`}
        name=${fileName(model.id, "drawing") + ".png"}
        pixel=${true}
        shares=${false}
      />
    </div>
  </div>`;
}
