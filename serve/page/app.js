// The page of the service: loads the models, and shows the gallery or one model.
//
// What is taken from other pages of the field:
// - Gradio's image demos: examples below every input, a pad to draw on, bars for classes, the
//   place in the queue and a way to cancel.
// - Replicate's playground: the form on the left and a large result on the right, programs with
//   exactly the values on screen, and an address that shows the same again.
// - ComfyUI: steps are counted while it works, any work can be interrupted, and a result carries
//   its recipe (here in the address and in the name of the downloaded file).
import {
  html,
  render,
  useEffect,
  useRef,
  useState,
} from "./vendor/htm-preact-standalone.module.js";
import { Gallery } from "./gallery.js";
import { go, linkTo, useAddress } from "./lib/address.js";
import { getJson, onReachable, postJson } from "./lib/api.js";
import { Model } from "./model.js";

const PERIOD_MS = 10_000;

/** Loads the models again and again, so that new models appear without a reload. */
function useModels() {
  const [state, setState] = useState({
    models: null,
    failed: {},
    service: null,
    reachable: true,
    error: "",
  });
  const update = (change) => setState((now) => ({ ...now, ...change }));

  async function refresh() {
    try {
      const [found, ready] = await Promise.all([
        getJson("v1/models"),
        fetch("readyz").then((answer) => answer.json()),
      ]);
      const builtin = found.builtin.map((each) => ({ ...each, builtin: true }));
      update({ models: [...found.data, ...builtin], failed: ready.failed, error: "" });
    } catch (problem) {
      update({ error: problem.message });
    }
  }

  useEffect(() => {
    const stop = onReachable((reachable) => update({ reachable }));
    getJson("api/service").then(
      (service) => update({ service }),
      (problem) => update({ error: problem.message }),
    );
    refresh();
    const timer = setInterval(() => {
      if (!document.hidden) refresh();
    }, PERIOD_MS);
    return () => {
      stop();
      clearInterval(timer);
    };
  }, []);
  // A service that started after the page was loaded.
  useEffect(() => {
    if (state.reachable && !state.service)
      getJson("api/service").then(
        (service) => update({ service }),
        () => {},
      );
  }, [state.reachable, state.models]);
  return { ...state, refresh };
}

function App() {
  const { models, failed, service, reachable, error, refresh } = useModels();
  const settings = useAddress();
  const [notice, setNotice] = useState(null);
  const main = useRef(null);
  const model = models?.find((each) => each.id === settings.model);

  useEffect(() => {
    document.title = model ? `${model.id} · genray` : "genray";
  }, [model?.id]);

  async function changed(text, deleted = "") {
    setNotice({ text, deleted });
    if (deleted) go({});
    await refresh();
  }

  async function restore(name) {
    try {
      await postJson(`api/models/${encodeURIComponent(name)}/rollback`, {});
      setNotice({ text: `${name} is back.`, deleted: "" });
    } catch (problem) {
      setNotice({ text: problem.message, deleted: "" });
    }
    await refresh();
  }

  const count = models?.filter((each) => !each.builtin).length ?? 0;
  const skip = (event) => {
    event.preventDefault();
    main.current.focus();
    main.current.scrollIntoView();
  };
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <header class="top">
      <a class="brand" ...${linkTo({})}
        ><img src="page/icon.svg" alt="" width="28" height="28" /><span>genray</span></a
      >
      <p id="state" role="status" class=${reachable ? "" : "gone"}>
        ${!reachable ? "not reachable" : models ? `${count} ${count === 1 ? "model" : "models"} ready` : "loading…"}
      </p>
      <nav aria-label="Service">
        <a href="openapi.json">API</a>
        ${service?.login && html`<form method="post" action="logout"><button class="outline secondary small">Log out</button></form>`}
      </nav>
    </header>
    <main id="main" ref=${main} tabindex="-1">
      ${
        !reachable &&
        html`<p class="banner error" role="alert">
          The service does not answer. It may have been stopped. This page tries again every
          ${PERIOD_MS / 1000} seconds.
          <button type="button" class="small" onClick=${refresh}>Try now</button>
        </p>`
      }
      ${reachable && error && html`<p class="banner error" role="alert">${error}</p>`}
      ${
        notice &&
        html`<p class="banner" role="status">
          ${notice.text}
          ${notice.deleted && html`<button type="button" class="small" onClick=${() => restore(notice.deleted)}>Undo</button>`}
          <button type="button" class="small outline secondary" onClick=${() => setNotice(null)}>
            Close
          </button>
        </p>`
      }
      ${content({ models, failed, service, model, settings, changed })}
    </main>
    <footer class="bottom">
      <span>genray ${service?.version ?? ""}</span>
      <a href="openapi.json">API</a>
      <a href="readyz">State</a>
      <a href="page/vendor/manifest.json">Libraries of this page</a>
    </footer>`;
}

function content({ models, failed, service, model, settings, changed }) {
  if (!models || !service) return html`<p aria-busy="true">Loading the models…</p>`;
  if (!settings.model) return html`<${Gallery} models=${models} failed=${failed} />`;
  if (!model)
    return html`<h1>There is no model “${settings.model}”</h1>
      <p>It may have been renamed or deleted. <a ...${linkTo({})}>All models</a></p>`;
  return html`<${Model}
    model=${model}
    service=${service}
    task=${settings.do}
    onChanged=${changed}
  />`;
}

const place = document.getElementById("app");
place.replaceChildren(); // without the note for browsers without JavaScript
render(html`<${App} />`, place);
