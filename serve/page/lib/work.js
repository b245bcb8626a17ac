// Work that takes time: one hook that runs it, and the parts that show its progress and its errors.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-standalone.module.js";

const IDLE = { busy: false, error: "", text: "", done: 0, of: 0, since: 0 };

/**
 * Runs one piece of work at a time. Returns {busy, error, run, cancel, …}.
 *
 * run(work) calls work({signal, progress}): `signal` ends requests when the user cancels or starts
 * something else; progress({text, done, of}) shows how far the work is.
 */
export function useWork() {
  const [state, setState] = useState(IDLE);
  const running = useRef(null);
  useEffect(() => () => running.current?.abort(), []);

  async function run(work) {
    running.current?.abort();
    const mine = new AbortController();
    running.current = mine;
    const update = (change) =>
      running.current === mine && setState((now) => ({ ...now, ...change }));
    setState({ ...IDLE, busy: true, since: performance.now() });
    try {
      await work({ signal: mine.signal, progress: update });
      update(IDLE);
    } catch (problem) {
      update({ ...IDLE, error: problem.name === "AbortError" ? "" : problem.message });
    }
  }

  return { ...state, run, cancel: () => running.current?.abort() };
}

/** The progress of some work, with a button that cancels it. Nothing while the work is idle. */
export function Working({ work, what }) {
  const seconds = useSeconds(work.busy, work.since);
  if (!work.busy) return null;
  const known = work.of > 0;
  const percent = known ? `${Math.round((100 * work.done) / work.of)} %, ` : "";
  return html`<div class="working">
    <progress
      aria-label=${what}
      value=${known ? work.done : undefined}
      max=${known ? work.of : undefined}
    />
    <p role="status">
      <span class="sr-only">${what}</span>
      <span aria-hidden="true">${work.text || what}… ${percent}${seconds.toFixed(1)} s</span>
    </p>
    <button type="button" class="outline secondary small" onClick=${work.cancel}>Cancel</button>
  </div>`;
}

function useSeconds(busy, since) {
  const [now, setNow] = useState(0);
  useEffect(() => {
    if (!busy) return undefined;
    setNow(performance.now());
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, [busy, since]);
  return Math.max(0, (now - since) / 1000);
}

/** The error of some work, beside its form. */
export function Problem({ work }) {
  return html`<div aria-live="assertive">
    ${work.error && html`<p class="error" role="alert">${work.error}</p>`}
  </div>`;
}

/** Loads a value when `keys` change. Returns {value, error}; `value` is null while it loads. */
export function useLoaded(load, keys) {
  const [state, setState] = useState({ value: null, error: "" });
  useEffect(() => {
    const mine = new AbortController();
    setState({ value: null, error: "" });
    load(mine.signal).then(
      (value) => !mine.signal.aborted && setState({ value, error: "" }),
      (problem) => !mine.signal.aborted && setState({ value: null, error: problem.message }),
    );
    return () => mine.abort();
  }, keys);
  return state;
}
