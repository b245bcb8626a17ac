// A result with everything that a person does with it: download, copy, full size, a link to share.
import { html, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { blobOf } from "../lib/api.js";

/**
 * A picture with its tools.
 *
 * `name`: the name of the downloaded file, with its ending. `pixel`: show sharp pixels, for small
 * pictures. `caption`: text or elements below the picture. `shares`: whether the address shows it
 * again.
 */
export function Picture({ src, alt, name, caption = "", pixel = false, shares = true }) {
  const full = useRef(null);
  if (!src) return null;
  return html`<figure class="result">
    <img class=${pixel ? "pixel" : ""} src=${src} alt=${alt} />
    <figcaption>${caption}</figcaption>
    <${Tools} src=${src} name=${name} shares=${shares} onFull=${() => full.current.showModal()} />
    <dialog class="full" ref=${full} aria-label=${alt} onClick=${() => full.current.close()}>
      <form method="dialog"><button class="small">Close</button></form>
      <img class=${pixel ? "pixel" : ""} src=${src} alt=${alt} />
    </dialog>
  </figure>`;
}

function Tools({ src, name, shares, onFull }) {
  const [said, setSaid] = useState("");
  const say = (text) => {
    setSaid(text);
    setTimeout(() => setSaid(""), 2500);
  };
  const attempt = (work, done) =>
    work().then(
      () => say(done),
      (problem) => say(problem.message),
    );
  const canCopy = !name.endsWith(".gif") && window.isSecureContext && "ClipboardItem" in window;
  return html`<div class="tools" role="toolbar" aria-label="What to do with the picture">
    <a class="tool" href=${src} download=${name}>Download</a>
    ${canCopy && html`<button type="button" class="tool" onClick=${() => attempt(() => copyPicture(src), "Picture copied.")}>Copy</button>`}
    <button type="button" class="tool" onClick=${onFull}>Full size</button>
    ${shares && html`<button type="button" class="tool" onClick=${() => attempt(() => copyText(location.href), "Link copied.")}>Share link</button>`}
    <span role="status">${said}</span>
  </div>`;
}

async function copyPicture(src) {
  await navigator.clipboard.write([new ClipboardItem({ "image/png": blobOf(src) })]);
}

/** Copies a text. Without https there is no clipboard API; a selected field is copied instead. */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = document.createElement("textarea");
  field.value = text;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  if (!copied) throw new Error("The browser does not allow copying here.");
}

/** Two pictures of the same size, one over the other; a slider moves the border between them. */
export function Compare({ before, after, alt }) {
  const [share, setShare] = useState(50);
  const top = useRef(null);
  if (top.current) top.current.style.clipPath = `inset(0 0 0 ${share}%)`;
  return html`<div class="compare">
    <div class="layers">
      <img src=${before} alt="before" />
      <img
        class="top"
        ref=${(node) => {
          top.current = node;
          if (node) node.style.clipPath = `inset(0 0 0 ${share}%)`;
        }}
        src=${after}
        alt=${alt}
      />
    </div>
    <label class="compare-label"
      >Before
      <input
        type="range"
        min="0"
        max="100"
        value=${share}
        aria-label="Border between before and after"
        onInput=${(event) => setShare(Number(event.target.value))}
      />
      After</label
    >
  </div>`;
}

/** Small pictures in a row or grid. Each is a button if `onPick` is given. */
export function Strip({ pictures, label, onPick, pixel = true, large = false }) {
  if (!pictures.length) return null;
  const show = ({ src, alt, caption }) =>
    html`<img class=${pixel ? "pixel" : ""} src=${src} alt=${alt} loading="lazy" />
      ${caption && html`<span>${caption}</span>`}`;
  return html`<ul class=${large ? "strip large" : "strip"} aria-label=${label}>
    ${pictures.map(
      (each) =>
        html`<li key=${each.key ?? each.alt}>
          ${
            onPick
              ? html`<button
                  type="button"
                  class="thumb"
                  aria-pressed=${each.chosen ? "true" : undefined}
                  onClick=${() => onPick(each)}
                >
                  ${show(each)}
                </button>`
              : html`<div class="thumb">${show(each)}</div>`
          }
        </li>`,
    )}
  </ul>`;
}
