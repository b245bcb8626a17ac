// Marks the part of a picture that an edit changes: the user paints over it.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";

const STROKE = 0.08; // of the longer side

/**
 * A picture to paint on. `onMask(blob)` is called after each stroke with a PNG of the picture's
 * size that is transparent where something was painted, and null at first and after Clear. Another
 * picture needs another pad (`key`).
 */
export function MaskPad({ picture, onMask }) {
  const canvas = useRef(null),
    last = useRef(null);
  const [size, setSize] = useState(null);
  useEffect(() => onMask(null), []);

  const place = (event) => {
    const box = canvas.current.getBoundingClientRect();
    return [
      (event.clientX - box.left) * (size.width / box.width),
      (event.clientY - box.top) * (size.height / box.height),
    ];
  };

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
      strokeStyle: "#e0218a",
      lineWidth: STROKE * Math.max(size.width, size.height),
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
    const mask = Object.assign(document.createElement("canvas"), size);
    const context = mask.getContext("2d");
    context.fillRect(0, 0, size.width, size.height);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(canvas.current, 0, 0);
    mask.toBlob(onMask, "image/png");
  }

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
          onPointerDown=${start}
          onPointerMove=${move}
          onPointerUp=${end}
          onPointerCancel=${end}
        />`
      }
    </div>
    <p>
      <span>Paint over the part to change.</span>
      <button type="button" class="outline small" disabled=${!size} onClick=${clear}>Clear</button>
    </p>
  </div>`;
}
