// The browser page of the service. It uses no library, and loads only from this service. Styles are
// set by class, because the content security policy forbids inline styles. Bar widths and slider
// values are therefore set as properties of the DOM.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const png = (base64) => `data:image/png;base64,${base64}`;

class Refused extends Error {}

async function ask(path, options = {}) {
  const answer = await fetch(`.${path}`, { credentials: "same-origin", ...options });
  if (answer.ok) return answer;
  if (answer.status === 401) location.reload(); // the service answers with its login
  let text = `${answer.status} ${answer.statusText}`;
  try { const body = await answer.json(); text = body.error?.message ?? body.error ?? text; } catch { /* not JSON */ }
  throw new Refused(text);
}

const askJson = async (path, options) => (await ask(path, options)).json();
const post = (path, body) => askJson(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// Runs `work`. The section shows a busy state, and the error if `work` fails.
async function during(section, work) {
  const error = $(".error", section);
  error.textContent = "";
  section.setAttribute("aria-busy", "true");
  try { await work(); } catch (problem) {
    if (problem.name !== "AbortError") error.textContent = problem instanceof Refused ? problem.message : `the service cannot be reached (${problem.message})`;
  } finally { section.removeAttribute("aria-busy"); }
}

function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function picture(source, alt, caption = "") {
  const figure = element("figure");
  figure.append(element("img", "", { src: source, alt }), element("figcaption", caption));
  return figure;
}

// -- models ----------------------------------------------------------------------------------------------------------

let models = [], builtin = []; // builtin: networks that make dreams and are no models of the directory

const can = (name) => models.filter((model) => model.functions.includes(name));
const editors = () => [...models.filter((model) => model.kind.startsWith("style_") || model.kind === "classifier"), ...builtin];
const findable = () => can("encode").filter((model) => (model.about.shape ?? []).length === 3);

function offer(section, choices) {
  section.hidden = choices.length === 0;
  const select = $("select[name=model]", section), before = select.value;
  select.replaceChildren(...choices.map((model) => element("option", model.id, { value: model.id })));
  if (choices.some((model) => model.id === before)) select.value = before;
  return select.value && select.value !== before;
}

function describe(model) {
  const about = model.about, parts = [model.kind];
  if (about.pictures) return `${about.pictures.toLocaleString()} pictures, to be found by a picture`;
  if (about.game) parts.push(about.game);
  if (about.shape) parts.push(about.shape.join("×"));
  if (about.latent) parts.push(`${about.latent} latents`);
  if (about.name) parts.push(`trained on ${about.name}`);
  return parts.join(" · ");
}

let shown = "";

async function refresh() {
  const answer = await askJson("/v1/models"), found = answer.data, signature = [...found, ...answer.builtin].map((model) => `${model.id} ${model.version}`).join();
  await showState(found.length);
  if (signature === shown && found.length) return;
  shown = signature;
  models = found;
  builtin = answer.builtin;
  const list = $("#models .cards");
  list.replaceChildren(...models.map((model) => {
    const card = element("li"), text = element("div");
    text.append(element("h3", model.id), element("p", describe(model)), element("p", `version ${model.version}`));
    card.append(text);
    if (model.functions.includes("generate")) thumbnail(card, model.id);
    return card;
  }));
  if (!models.length) list.append(element("li", "No model yet: train one into the directory, it will appear here."));
  if (offer($("#make"), can("generate"))) generate();
  offer($("#style"), editors());
  showStyleInputs();
  offer($("#find"), findable());
  offer($("#watch"), can("act").filter((model) => model.about.game));
}

async function showState(number) {
  const state = await (await fetch("./readyz")).json();
  const text = state.ready ? `ready: ${number} models` : `not ready: ${Object.entries(state.failed).map((each) => each.join(": ")).join("; ") || "no models"}`;
  if ($("#state").textContent !== text) $("#state").textContent = text; // or it would be read aloud again and again
}

async function thumbnail(card, model) {
  try {
    const made = await post("/v1/images/generations", { model, n: 1, seed: 0 });
    card.append(element("img", "", { src: png(made.data[0].b64_json), alt: `a sample of ${model}` }));
  } catch { /* the card says enough without it */ }
}

// -- generate --------------------------------------------------------------------------------------------------------

const make = $("#make");

const scaled = (model) => { const side = Math.max(...model.about.shape.slice(1)); return Math.max(1, Math.floor(256 / side)); };

function sizeOf(model) { const k = scaled(model), [, height, width] = model.about.shape; return `${k * width}x${k * height}`; }

function generate(withGrid = true) {
  return during(make, async () => {
    const model = models.find((each) => each.id === $("select", make).value), seed = Number($("[name=seed]", make).value) || 0;
    const made = await post("/v1/images/generations", { model: model.id, n: withGrid ? 13 : 1, seed, size: sizeOf(model) });
    show(png(made.data[0].b64_json), `${model.id}, seed ${seed}`);
    if (withGrid) $(".grid", make).replaceChildren(...made.data.slice(1).map((each, index) => picture(png(each.b64_json), `sample of seed ${seed + index + 1}`, `${seed + index + 1}`)));
    sliders(model);
  });
}

function show(source, caption) {
  const image = $("img.big", make);
  image.src = source;
  image.alt = caption;
  $("figcaption", make).textContent = caption;
}

// A dragged slider changes dozens of times a second. Only one request runs at a time; the next one
// uses the slider's value at that moment.
let sliding = false, again = false;

function sliders(model) {
  const box = $(".sliders div", make);
  if (box.dataset.model === model.id) return;
  box.dataset.model = model.id;
  const reach = model.about.prior === "uniform" ? 1 : 3, count = Math.min(model.about.latent, 64);
  box.replaceChildren(...Array.from({ length: count }, (_, index) => {
    const label = element("label", `z${index + 1}`);
    label.append(element("input", "", { type: "range", min: -reach, max: reach, step: reach / 50, value: 0, "aria-label": `latent ${index + 1}` }));
    return label;
  }));
}

async function slide() {
  if (sliding) { again = true; return; }
  sliding = true;
  do {
    again = false;
    await during(make, async () => {
      const model = models.find((each) => each.id === $("select", make).value), latent = new Array(model.about.latent).fill(0);
      document.querySelectorAll("#make .sliders input").forEach((input, index) => { latent[index] = Number(input.value); });
      const made = await post("/v1/images/generations", { model: model.id, latent: [latent], size: sizeOf(model) });
      show(png(made.data[0].b64_json), `${model.id}, latents by hand`);
    });
  } while (again);
  sliding = false;
}

$("form", make).addEventListener("submit", (event) => { event.preventDefault(); generate(); });
$("select", make).addEventListener("change", () => generate());
$(".sliders", make).addEventListener("input", slide);
$("[name=dice]", make).addEventListener("click", () => { $("[name=seed]", make).value = Math.floor(Math.random() * 1e6); generate(); });
$("[name=zero]", make).addEventListener("click", () => { document.querySelectorAll("#make .sliders input").forEach((input) => { input.value = 0; }); slide(); });
$("[name=walk]", make).addEventListener("click", () => during(make, async () => {
  const model = $("select", make).value, seed = Number($("[name=seed]", make).value) || 0;
  const answer = await ask(`/api/walk/${encodeURIComponent(model)}?seed=${seed % 2147483648}`);
  show(URL.createObjectURL(await answer.blob()), `${model}, a walk from seed ${seed}`);
}));

// -- pictures in -------------------------------------------------------------------------------------------------------

document.querySelectorAll(".drop").forEach((drop) => {
  const input = $("input", drop);
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); input.files = event.dataTransfer.files; input.dispatchEvent(new Event("change", { bubbles: true })); });
});

const style = $("#style");

function showStyleInputs() {
  const model = editors().find((each) => each.id === $("select", style).value);
  $(".wants-style", style).hidden = model?.kind !== "style_any";
  for (const label of style.querySelectorAll(".of-styles")) label.hidden = !model?.kind.startsWith("style_"); // a dream has neither
}

$("select", style).addEventListener("change", showStyleInputs);
$("[name=photo]", style).addEventListener("change", (event) => { const file = event.target.files[0]; if (file) { $(".before", style).src = URL.createObjectURL(file); $(".before", style).alt = file.name; } });
$("form", style).addEventListener("submit", (event) => {
  event.preventDefault();
  during(style, async () => {
    const form = event.target, body = new FormData(), model = editors().find((each) => each.id === form.model.value);
    body.append("model", model.id);
    body.append("image", form.photo.files[0]);
    if (model.kind === "style_any" && form.style.files[0]) body.append("image", form.style.files[0]);
    body.append("alpha", form.alpha.value);
    body.append("keep_colours", form.keep_colours.checked);
    const made = await askJson("/v1/images/edits", { method: "POST", body });
    $(".after", style).src = png(made.data[0].b64_json);
    $(".after", style).alt = `by ${model.id}`;
  });
});

// -- find --------------------------------------------------------------------------------------------------------------

const find = $("#find");

$("form", find).addEventListener("submit", (event) => {
  event.preventDefault();
  during(find, async () => {
    const form = event.target;
    const found = await askJson(`/api/retrieve/${encodeURIComponent(form.model.value)}?count=12`, { method: "POST", body: form.photo.files[0] });
    const query = picture(png(found.query.b64_json), "the query", "query");
    $("img", query).className = "query";
    const photographs = models.find((each) => each.id === form.model.value).kind === "photographs";
    const named = (each) => (photographs ? each.name.split("/").pop().replace(/\.\w+$/, "") : each.label ?? each.name ?? each.row);
    $(".grid", find).classList.toggle("photographs", photographs);
    $(".grid", find).replaceChildren(query, ...found.neighbours.map((each) => picture(png(each.b64_json), `neighbour: ${named(each)}`, `${named(each)} · ${each.distance.toFixed(2)}`)));
  });
});

// -- watch -------------------------------------------------------------------------------------------------------------

const watch = $("#watch");
let watching = null;

async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}

function drawValues(box, names, step) {
  if (box.childElementCount !== names.length) box.replaceChildren(...names.map((name) => { const row = element("div"); row.append(element("span", name), element("i"), element("b", "")); return row; }));
  if (!step.q) return;
  const low = Math.min(...step.q), high = Math.max(...step.q);
  step.q.forEach((value, index) => {
    const row = box.children[index];
    row.children[1].style.width = `${Math.round(4 + 96 * (high > low ? (value - low) / (high - low) : 0))}%`;
    row.children[2].textContent = value.toFixed(2);
    row.className = names[index] === step.action ? "best" : "";
  });
}

$("form", watch).addEventListener("submit", (event) => {
  event.preventDefault();
  watching?.abort();
  const mine = watching = new AbortController(), stop = $("[name=stop]", watch);
  during(watch, async () => {
    stop.disabled = false;
    const form = event.target, canvas = $("canvas", watch), context = canvas.getContext("2d");
    const answer = await ask(`/api/play/${encodeURIComponent(form.model.value)}?seed=${Number(form.seed.value) || 0}&steps=900`, { signal: mine.signal });
    let names = [], steps = 0, score = 0;
    for await (const step of lines(answer)) {
      if (step.error) throw new Refused(step.error);
      names = step.actions ?? names;
      const image = new Image();
      image.src = png(step.png);
      await image.decode();
      canvas.width = image.width; canvas.height = image.height;
      context.drawImage(image, 0, 0);
      canvas.classList.add("on");
      ({ score } = step); steps = step.step;
      $("figcaption", watch).textContent = `score ${score}, step ${steps}${step.action ? `, ${step.action}` : ""}`;
      drawValues($(".values", watch), names, step);
    }
    $("figcaption", watch).textContent = `over: score ${score} after ${steps} steps`;
  }).finally(() => { if (watching === mine) stop.disabled = true; });
});
$("[name=stop]", watch).addEventListener("click", () => watching?.abort());

// -- start -------------------------------------------------------------------------------------------------------

// Refresh the list of models, so that new models of the directory appear.
const look = () => refresh().catch((problem) => { $("#state").textContent = problem.message; });
look();
setInterval(() => { if (!document.hidden) look(); }, 10_000);
