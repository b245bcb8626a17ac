// Shows training pictures or texts as points in the plane: similar ones lie close to each other.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { getJson, png } from "../lib/api.js";
import { Problem, useWork, Working } from "../lib/work.js";
import { routeSnippets, Snippets } from "../parts/snippet.js";

const SIDE = 720,
  EDGE = 30;
// Ten colours that differ in light and in dark mode (Tableau 10).
const COLOURS = [
  "#4e79a7",
  "#f28e2b",
  "#e15759",
  "#76b7b2",
  "#59a14f",
  "#edc948",
  "#b07aa1",
  "#ff9da7",
  "#9c755f",
  "#8f8986",
];

export function CodeMap({ model, service }) {
  const [count, setCount] = useState(500);
  const [map, setMap] = useState(null);
  const [sheet, setSheet] = useState(null);
  const [pictures, setPictures] = useState(true);
  const [place, setPlace] = useState(-1);
  const canvas = useRef(null);
  const work = useWork();
  const path = `api/map/${encodeURIComponent(model.id)}?count=${count}`;

  useEffect(() => {
    setMap(null);
    setPlace(-1);
    work.run(async ({ signal }) => {
      const found = await getJson(path, { signal });
      const image = found.sheet ? new Image() : null;
      if (image) {
        image.src = png(found.sheet);
        await image.decode();
      }
      setSheet(image);
      setMap(found);
    });
  }, [model.id, model.version, count]);
  useEffect(() => {
    if (map && canvas.current) draw(canvas.current, map, pictures ? sheet : null, place);
  }, [map, sheet, pictures, place]);

  const classes = map
    ? [...new Set(map.labels)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }))
    : [];

  function hover(event) {
    const box = canvas.current.getBoundingClientRect();
    const x = ((event.clientX - box.left) * SIDE) / box.width,
      y = ((event.clientY - box.top) * SIDE) / box.height;
    setPlace(nearest(map.points, x, y));
  }

  // Arrow keys go through the points from left to right.
  function walk(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const order = map.points
      .map((point, index) => index)
      .sort((a, b) => map.points[a][0] - map.points[b][0]);
    setPlace(order[(order.indexOf(place) + step + order.length) % order.length]);
  }

  return html`<div class="task result-first">
    <form class="controls" onSubmit=${(event) => event.preventDefault()}>
      <p>
        Every point is a picture or text that the model was trained on. The model turns each into a
        code; similar codes lie close to each other.
      </p>
      <label
        >Number of points
        <select value=${count} onChange=${(event) => setCount(Number(event.target.value))}>
          ${[100, 250, 500, 1000].map((each) => html`<option value=${each}>${each}</option>`)}
        </select></label
      >
      ${sheet && html`<label
        ><input
          type="checkbox"
          role="switch"
          checked=${pictures}
          onChange=${(event) => setPictures(event.target.checked)}
        />
        Show the pictures</label
      >`}
      ${
        classes.length > 0 &&
        classes.length <= 20 &&
        html`<ul class="legend" aria-label="Colours of the classes">
          ${classes.map(
            (each, index) =>
              html` <li key=${each}>
                <svg viewBox="0 0 10 10" aria-hidden="true">
                  <circle cx="5" cy="5" r="5" fill=${COLOURS[index % 10]} /></svg
                >${each}
              </li>`,
          )}
        </ul>`
      }
      ${
        map &&
        place >= 0 &&
        html`<div class="found" role="status">
          <${Tile} map=${map} sheet=${sheet} place=${place} />
          <p>
            ${map.names[place] ?? ""} ${map.labels.length ? html`<b>${map.labels[place]}</b>` : ""}
          </p>
        </div>`
      }
    </form>
    <div class="output" aria-busy=${work.busy ? "true" : "false"}>
      <${Working} work=${work} what="Computing the codes" />
      <${Problem} work=${work} />
      ${
        map &&
        html`<figure class="result">
          <canvas
            class="map"
            ref=${canvas}
            width=${SIDE}
            height=${SIDE}
            tabindex="0"
            role="img"
            aria-label=${`Map of ${map.points.length} points. Arrow keys go from point to point.`}
            onPointerMove=${hover}
            onKeyDown=${walk}
          />
          <figcaption>
            Right: ${map.axes[0]}. Up: ${map.axes[1]}. The plane shows
            ${Math.round(100 * map.explained)} % of the codes' variance.
          </figcaption>
        </figure>`
      }
    </div>
    <${Snippets} programs=${routeSnippets(path, { login: service.login })} />
  </div>`;
}

const across = ([x]) => EDGE + x * (SIDE - 2 * EDGE);
const down = ([, y]) => SIDE - EDGE - y * (SIDE - 2 * EDGE);

function nearest(points, x, y) {
  let best = -1,
    least = 30 ** 2; // at most 30 pixels away
  points.forEach((point, index) => {
    const distance = (across(point) - x) ** 2 + (down(point) - y) ** 2;
    if (distance < least) [best, least] = [index, distance];
  });
  return best;
}

function draw(canvas, map, sheet, place) {
  const context = canvas.getContext("2d");
  const classes = [...new Set(map.labels)].sort((a, b) =>
    a.localeCompare(b, "en", { numeric: true }),
  );
  const colour = (index) => COLOURS[Math.max(0, classes.indexOf(map.labels[index])) % 10];
  context.clearRect(0, 0, SIDE, SIDE);
  const order = map.points.map((point, index) => index).filter((index) => index !== place);
  for (const index of place >= 0 ? [...order, place] : order) {
    const large = index === place,
      x = across(map.points[index]),
      y = down(map.points[index]);
    if (sheet) {
      const side = large ? 56 : 24,
        [height, width] = map.tile;
      const left = (index % map.columns) * width,
        top = Math.floor(index / map.columns) * height;
      context.imageSmoothingEnabled = width > 40;
      context.fillStyle = colour(index);
      context.fillRect(x - side / 2 - 1.5, y - side / 2 - 1.5, side + 3, side + 3);
      context.drawImage(sheet, left, top, width, height, x - side / 2, y - side / 2, side, side);
    } else {
      context.fillStyle = colour(index);
      context.beginPath();
      context.arc(x, y, large ? 10 : 5, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

function Tile({ map, sheet, place }) {
  const canvas = useRef(null);
  useEffect(() => {
    if (!sheet || !canvas.current) return;
    const [height, width] = map.tile,
      context = canvas.current.getContext("2d");
    context.drawImage(
      sheet,
      (place % map.columns) * width,
      Math.floor(place / map.columns) * height,
      width,
      height,
      0,
      0,
      width,
      height,
    );
  }, [place, sheet]);
  return sheet
    ? html`<canvas
        class="pixel tile"
        ref=${canvas}
        width=${map.tile[1]}
        height=${map.tile[0]}
        role="img"
        aria-label="the chosen picture"
      />`
    : null;
}
