// A curve that grows while a game is played. uPlot, which draws it, is loaded only when needed.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";

const HEIGHT = 180;

/** The curve. `handle.current` receives {add(x, y), clear()}. */
export function Curve({ handle, label }) {
  const box = useRef(null),
    plot = useRef(null),
    data = useRef([[], []]);
  const [used, setUsed] = useState(false);

  handle.current = {
    add(x, y) {
      data.current[0].push(x);
      data.current[1].push(y);
      if (!used) setUsed(true);
      plot.current?.setData(data.current);
    },
    clear() {
      data.current = [[], []];
      plot.current?.setData(data.current);
    },
  };

  useEffect(() => {
    if (!used) return undefined;
    let ended = false;
    import("../vendor/uPlot.esm.js").then(({ default: UPlot }) => {
      if (ended) return;
      plot.current = new UPlot(options(box.current, label), data.current, box.current);
    });
    const fit = () => plot.current?.setSize({ width: box.current.clientWidth, height: HEIGHT });
    window.addEventListener("resize", fit);
    return () => {
      ended = true;
      window.removeEventListener("resize", fit);
      plot.current?.destroy();
      plot.current = null;
    };
  }, [used]);

  return html`<div class="curve" hidden=${!used}>
    <h2>${label}</h2>
    <div ref=${box} role="img" aria-label=${`Curve: ${label}, by step`} />
  </div>`;
}

function options(box, label) {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axis = {
    stroke: colour("--pico-muted-color"),
    grid: { stroke: colour("--pico-muted-border-color"), width: 1 },
    ticks: { show: false },
  };
  return {
    width: box.clientWidth,
    height: HEIGHT,
    legend: { show: false },
    cursor: { show: false },
    scales: { x: { time: false } },
    axes: [axis, { ...axis, size: 44 }],
    series: [{}, { label, stroke: colour("--pico-primary"), width: 2 }],
  };
}
