// Calls the service. Every path is relative to the page, so the page works under a path prefix,
// too.

/** The service answered, and refused the request. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The service did not answer. */
export class Gone extends Error {
  constructor() {
    super("The service does not answer. Is it still running?");
  }
}

const listeners = new Set();

/** Calls `listener(reachable)` after every request; returns a function that stops this. */
export function onReachable(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function report(reachable) {
  for (const listener of listeners) listener(reachable);
}

/** Sends a request and returns the Response. Raises Refused, Gone, or AbortError. */
export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    report(false);
    throw new Gone();
  }
  report(true);
  if (answer.ok) return answer;
  // The session has ended: the service shows its login.
  if (answer.status === 401) location.reload();
  throw new Refused(await messageOf(answer), answer.status);
}

async function messageOf(answer) {
  try {
    const body = await answer.json();
    return body.error?.message ?? body.error ?? `${answer.status} ${answer.statusText}`;
  } catch {
    return `${answer.status} ${answer.statusText}`; // not JSON, e.g. the answer of a proxy
  }
}

export const getJson = async (path, options) => (await ask(path, options)).json();

export function postJson(path, body, options = {}) {
  const headers = { "Content-Type": "application/json" };
  return getJson(path, { method: "POST", headers, body: JSON.stringify(body), ...options });
}

/** Yields the JSON objects of an answer with one object a line, while they arrive. */
export async function* lines(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part);
    }
  } catch (problem) {
    if (problem.name === "AbortError") throw problem;
    report(false); // the connection broke in the middle of the answer
    throw new Gone();
  }
}

/** A PNG in base64 as the address of an <img>. */
export const png = (base64) => `data:image/png;base64,${base64}`;

/** Loads an address as a Blob. The content security policy forbids fetch() of data: addresses. */
export async function blobOf(address) {
  if (!address.startsWith("data:")) return (await ask(address)).blob();
  const [head, content] = address.split(",");
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}
