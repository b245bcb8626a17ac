// A pad to draw on: digits in white on black, as those of the data sets, or outlines on white.
import { html, useRef } from "../vendor/htm-preact-standalone.module.js";
import { chosen } from "./picker.js";

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
  const last = useRef(null);

  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [
      (event.clientX - box.left) * (SIDE / box.width),
      (event.clientY - box.top) * (SIDE / box.height),
    ];
  };

  function clear() {
    const context = canvas.current.getContext("2d");
    context.fillStyle = paper;
    context.fillRect(0, 0, SIDE, SIDE);
  }

  function start(event) {
    event.preventDefault();
    canvas.current.setPointerCapture(event.pointerId);
    last.current = place(event);
    move(event);
  }

  function move(event) {
    if (!last.current) return;
    const context = canvas.current.getContext("2d"),
      next = place(event);
    Object.assign(context, {
      strokeStyle: ink,
      lineWidth: stroke,
      lineCap: "round",
      lineJoin: "round",
    });
    context.beginPath();
    context.moveTo(...last.current);
    context.lineTo(...next);
    context.stroke();
    last.current = next;
  }

  function end() {
    if (!last.current) return;
    last.current = null;
    canvas.current.toBlob((blob) => onPick(chosen(blob, "drawing")), "image/png");
  }

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
      onPointerDown=${start}
      onPointerMove=${move}
      onPointerUp=${end}
      onPointerCancel=${end}
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
