// The page of one model: its tasks as tabs, and the tools of its owner.
import { html } from "./vendor/htm-preact-standalone.module.js";
import { linkTo } from "./lib/address.js";
import { describe, kindOf, TASKS, tasksOf } from "./lib/names.js";
import { Manage } from "./parts/manage.js";
import { Dream } from "./tasks/dream.js";
import { Paint } from "./tasks/edit.js";
import { Find } from "./tasks/find.js";
import { Generate } from "./tasks/generate.js";
import { CodeMap } from "./tasks/map.js";
import { Inside } from "./tasks/inside.js";
import { Play } from "./tasks/play.js";
import { Classify, Rebuild } from "./tasks/read.js";
import { Sketch, Translate } from "./tasks/translate.js";
import { Walk } from "./tasks/walk.js";

const COMPONENTS = {
  generate: Generate,
  walk: Walk,
  paint: Paint,
  sketch: Sketch,
  translate: Translate,
  classify: Classify,
  rebuild: Rebuild,
  find: Find,
  map: CodeMap,
  dream: Dream,
  play: Play,
  inside: Inside,
};

export function Model({ model, service, task, onChanged }) {
  const tasks = tasksOf(model);
  const shown = tasks.includes(task) ? task : tasks[0];
  const Component = COMPONENTS[shown];
  return html`<section class="model" aria-label=${model.id}>
    <nav aria-label="Breadcrumb"><a ...${linkTo({})}>← All models</a></nav>
    <header>
      <div>
        <h1>${model.id}</h1>
        <p><b>${kindOf(model)}</b> · ${describe(model)}</p>
      </div>
      ${!model.builtin && html`<${Manage} model=${model} service=${service} onChanged=${onChanged} />`}
    </header>
    ${
      tasks.length > 1 &&
      html`<nav class="tabs" aria-label="What the model can do">
        <ul>
          ${tasks.map(
            (each) =>
              html`<li key=${each}>
                <a
                  ...${linkTo({ model: model.id, do: each })}
                  aria-current=${each === shown ? "page" : undefined}
                  >${TASKS[each].title}</a
                >
              </li>`,
          )}
        </ul>
      </nav>`
    }
    ${
      Component
        ? html`<${Component} key=${`${model.id} ${shown}`} model=${model} service=${service} />`
        : html`<p>
            This model has no task for the page. Programs can use it: see the
            <a href="openapi.json">description of the API</a>.
          </p>`
    }
  </section>`;
}
