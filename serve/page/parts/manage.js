// Versions of a model: go back to an earlier one, or delete the model. Both ask first.
import { html, useRef, useState } from "../vendor/htm-preact-standalone.module.js";
import { ask, postJson } from "../lib/api.js";
import { Problem, useWork } from "../lib/work.js";

/** `onChanged(text)`: called after a change, with a sentence for the user. */
export function Manage({ model, service, onChanged }) {
  const question = useRef(null);
  const [action, setAction] = useState(null);
  const work = useWork();
  const earlier = model.versions.filter((each) => each !== model.version);
  const path = encodeURIComponent(model.id);

  const open = (next) => {
    setAction(next);
    question.current.showModal();
  };
  const roll = (version) => ({
    title: `Go back to version ${version}?`,
    verb: "Go back",
    text: `“${model.id}” is replaced at once for everyone who uses this service. The current version ${model.version} is kept.`,
    run: async () => {
      await postJson(`api/models/${path}/rollback?version=${version}`, {});
      return `${model.id} is at version ${version} again.`;
    },
  });
  const remove = {
    title: `Delete “${model.id}”?`,
    verb: "Delete",
    danger: true,
    text: "Nobody can use it any more. Its last versions are kept on the server, so a rollback restores it.",
    run: async () => {
      await ask(`v1/models/${path}`, { method: "DELETE" });
      return `${model.id} was deleted.`;
    },
  };

  const confirm = () =>
    work.run(async () => {
      const said = await action.run();
      question.current.close();
      onChanged(said, action === remove || action.danger ? model.id : "");
    });

  return html`<details class="manage">
    <summary>Version ${model.version.slice(0, 7)}</summary>
    <div>
      ${
        earlier.length
          ? html`<p>Earlier versions:</p>
              <ul>
                ${earlier.map(
                  (each) =>
                    html`<li key=${each}>
                      <code>${each}</code>
                      ${service.allow_changes && html`<button type="button" class="outline small" onClick=${() => open(roll(each))}>Go back</button>`}
                    </li>`,
                )}
              </ul>`
          : html`<p>There is no earlier version.</p>`
      }
      ${service.allow_changes && html`<button type="button" class="outline danger small" onClick=${() => open(remove)}>Delete…</button>`}
    </div>
    <dialog ref=${question} aria-labelledby="question-title">
      <article>
        <h2 id="question-title">${action?.title}</h2>
        <p>${action?.text}</p>
        <${Problem} work=${work} />
        <footer>
          <button
            type="button"
            class="secondary"
            autofocus
            onClick=${() => question.current.close()}
          >
            Cancel
          </button>
          <button
            type="button"
            class=${action?.danger ? "danger" : ""}
            disabled=${work.busy}
            onClick=${confirm}
          >
            ${action?.verb}
          </button>
        </footer>
      </article>
    </dialog>
  </details>`;
}
