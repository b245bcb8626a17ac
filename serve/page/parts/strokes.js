// Painting on a canvas with the mouse, a finger or a pen.
import { useRef } from "../vendor/htm-preact-standalone.module.js";

/**
 * Handlers for a canvas on which pointers paint: spread them into its element. `canvas`: a ref to
 * it; `ink`: colour; `stroke`: width in the canvas's own pixels; `onStroke()` is called after each
 * stroke.
 */
export function useStrokes({ canvas, ink, stroke, onStroke }) {
  const last = useRef(null);

  const place = (event) => {
    const { current: node } = canvas,
      box = node.getBoundingClientRect();
    return [
      (event.clientX - box.left) * (node.width / box.width),
      (event.clientY - box.top) * (node.height / box.height),
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
    onStroke();
  }

  return { onPointerDown: start, onPointerMove: move, onPointerUp: end, onPointerCancel: end };
}
