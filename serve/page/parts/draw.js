// A pad to draw on: digits in white on black, as those of the data sets, or outlines on white.
import { html, useRef } from "../vendor/htm-preact-standalone.module.js";
import { chosen } from "./picker.js";
import { useStrokes } from "./strokes.js";

const SIDE = 280;
const STROKE = 24;

/** Whether drawings resemble the pictures that a model was trained on. */
export const canDraw = (model) => ["digits", "mnist", "mnist5k"].includes(model.about.name);

/**
 * The pad; `onPick(picture)` is called after each stroke. Without a pointer, use the examples.
 * `ink`, `paper`: colours; `stroke`: width in pixels of the pad; `what`: what to draw.
 */
export function DrawPad({
  onPick,
  onClear = () => {},
  ink = "#fff",
  paper = "#000",
  stroke = STROKE,
  what = "a digit",
}) {
  const canvas = useRef(null);

  function clear() {
    const context = canvas.current.getContext("2d");
    context.fillStyle = paper;
    context.fillRect(0, 0, SIDE, SIDE);
  }

  const strokes = useStrokes({
    canvas,
    ink,
    stroke,
    onStroke: () =>
      canvas.current.toBlob((blob) => onPick(chosen(blob, "drawing")), "image/png"),
  });

  const prepare = (node) => {
    if (node && canvas.current !== node) {
      canvas.current = node;
      clear();
    }
  };
  return html`<div class="pad">
    <canvas
      ref=${prepare}
      width=${SIDE}
      height=${SIDE}
      role="img"
      aria-label=${`Pad: draw ${what} here with the mouse or a finger`}
      ...${strokes}
    />
    <p>
      <span>Draw ${what} here.</span>
      <button
        type="button"
        class="outline small"
        onClick=${() => {
          clear();
          onClear();
        }}
      >
        Clear
      </button>
    </p>
  </div>`;
}
