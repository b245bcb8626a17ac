// The first page: every model as a card with a picture of what it makes, grouped by what it is
// for.
import { html, useEffect, useState } from "./vendor/htm-preact-standalone.module.js";
import { linkTo } from "./lib/address.js";
import { ask } from "./lib/api.js";
import { describe, GROUPS, isText, kindOf, TASKS, tasksOf } from "./lib/names.js";

export function Gallery({ models, failed }) {
  const groups = GROUPS.map((group) => ({
    ...group,
    models: models.filter((each) => group.first.includes(tasksOf(each)[0])),
  }));
  const others = models.filter((each) => !tasksOf(each).length);
  const filled = groups.filter((group) => group.models.length),
    empty = groups.filter((group) => !group.models.length);
  return html`<div class="gallery">
    <header class="hero">
      <h1>${models.length ? "What do you want to try?" : "No models yet"}</h1>
      <p>
        ${
          models.length
            ? "Each card is a trained model. Choose one: everything runs on this machine."
            : "Train one of these into the directory that is served. It appears here by itself, without a restart."
        }
      </p>
    </header>
    ${filled.map(
      (group) =>
        html`<section key=${group.title} aria-label=${group.title}>
          <h2>${group.title}</h2>
          <ul class="cards">
            ${group.models.map((model) => html`<${Card} key=${model.id} model=${model} />`)}
          </ul>
        </section>`,
    )}
    ${
      others.length > 0 &&
      html`<section aria-label="Other models">
        <h2>For programs only</h2>
        <ul class="cards">
          ${others.map((model) => html`<${Card} key=${model.id} model=${model} />`)}
        </ul>
      </section>`
    }
    ${
      empty.length > 0 &&
      html`<section class="missing" aria-label="What could be added">
        <h2>${models.length ? "Add more" : "Start with one of these"}</h2>
        <ul>
          ${empty.map(
            (group) =>
              html`<li key=${group.title}>
                <b>${group.title}</b>
                <pre
                  tabindex="0"
                  aria-label=${`Command: ${group.title}`}
                ><code>${group.train}</code></pre>
              </li>`,
          )}
        </ul>
      </section>`
    }
    ${
      Object.keys(failed).length > 0 &&
      html`<section class="missing" aria-label="Models that could not be loaded">
        <h2>Could not be loaded</h2>
        <ul>
          ${Object.entries(failed).map(([name, reason]) => html`<li key=${name}><b>${name}</b> <span class="error">${reason}</span></li>`)}
        </ul>
      </section>`
    }
  </div>`;
}

function Card({ model }) {
  const tasks = tasksOf(model);
  return html`<li class="card">
    <a ...${linkTo({ model: model.id })}>
      <${Cover} model=${model} />
      <h3>${model.id}</h3>
      <p class="kind">${kindOf(model)}</p>
      <p>${describe(model)}</p>
      <ul class="chips" aria-label="What it can do">
        ${tasks.map((task) => html`<li key=${task} class="chip">${TASKS[task].title}</li>`)}
      </ul>
    </a>
  </li>`;
}

// Covers are drawn one after another, because each can take seconds of the service's slow work.
let queue = Promise.resolve();
const covers = new Map();

async function loadCover(model, signal) {
  const key = `${model.id} ${model.version}`;
  if (covers.has(key)) return covers.get(key);
  const path = `api/cover/${encodeURIComponent(model.id)}?version=${model.version}`;
  const cover = queue.then(async () => {
    signal.throwIfAborted(); // the user has gone on to a model, whose work comes first
    return URL.createObjectURL(await (await ask(path, { signal })).blob());
  });
  queue = cover.catch(() => {});
  covers.set(key, await cover);
  return covers.get(key);
}

export function Cover({ model }) {
  const [source, setSource] = useState("");
  useEffect(() => {
    const mine = new AbortController();
    setSource("");
    if (isText(model)) return undefined; // texts have no picture
    // A model without pictures keeps its initial.
    loadCover(model, mine.signal).then(
      (found) => mine.signal.aborted || setSource(found),
      () => {},
    );
    return () => mine.abort();
  }, [model.id, model.version]);
  const small = !["style_fast", "style_any", "features", "photographs"].includes(model.kind);
  return html`<div class=${model.about.game ? "cover tall" : "cover"}>
    ${
      source
        ? html`<img class=${small ? "pixel" : ""} src=${source} alt="" />`
        : html`<span aria-hidden="true">${isText(model) ? "Aa" : model.id[0]}</span>`
    }
  </div>`;
}
