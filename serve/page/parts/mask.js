// Marks the part of a picture that an edit changes: the user paints over it.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { useStrokes } from "./strokes.js";

const STROKE = 0.08; // of the longer side

/**
 * A picture to paint on. `onMask(blob)` is called after each stroke with a PNG of the picture's
 * size that is transparent where something was painted, and null at first and after Clear. Another
 * picture needs another pad (`key`).
 */
export function MaskPad({ picture, onMask }) {
  const canvas = useRef(null);
  const [size, setSize] = useState(null);
  useEffect(() => onMask(null), []);

  function cut() {
    const mask = Object.assign(document.createElement("canvas"), size);
    const context = mask.getContext("2d");
    context.fillRect(0, 0, size.width, size.height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(canvas.current, 0, 0);
    mask.toBlob(onMask, "image/png");
  }

  const strokes = useStrokes({
    canvas,
    ink: "#e0218a",
    stroke: size && STROKE * Math.max(size.width, size.height),
    onStroke: cut,
  });

  function clear() {
    canvas.current.getContext("2d").clearRect(0, 0, size.width, size.height);
    onMask(null);
  }

  return html`<div class="pad">
    <div class="mask">
      <img
        src=${picture.url}
        alt=""
        onLoad=${({ target }) => setSize({ width: target.naturalWidth, height: target.naturalHeight })}
      />
      ${
        size &&
        html`<canvas
          ref=${canvas}
          ...${size}
          role="img"
          aria-label="Paint over the part to change, with the mouse or a finger"
          ...${strokes}
        />`
      }
    </div>
    <p>
      <span>Paint over the part to change.</span>
      <button type="button" class="outline small" disabled=${!size} onClick=${clear}>Clear</button>
    </p>
  </div>`;
}
