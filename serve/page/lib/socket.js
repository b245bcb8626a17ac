// A WebSocket of the service that sends lines of JSON.
import { ask, Gone, Refused } from "./api.js";

/**
 * Opens `path` and calls `receive(line)` for each line, one after another. Returns {send, close,
 * done}: `done` ends when the service closes the socket, with Refused if it sent an error, and with
 * Gone if it does not answer.
 */
export function open(path, receive) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  let refused = null,
    opened = false,
    wanted = true,
    queue = Promise.resolve();
  const done = new Promise((resolve, reject) => {
    socket.addEventListener("open", () => {
      opened = true;
    });
    socket.addEventListener("message", ({ data }) => {
      const line = JSON.parse(data);
      if (line.error) refused = new Refused(line.error, 400);
      else queue = queue.then(() => wanted && receive(line));
    });
    socket.addEventListener("close", async ({ code }) => {
      await queue.catch(reject);
      if (!wanted || code === 1000) resolve();
      else if (refused) reject(refused);
      // The browser does not say why a socket was not opened. A request does: it may need a key.
      else if (!opened) ask("api/service").then(() => reject(new Gone()), reject);
      else reject(new Gone());
    });
  });
  return {
    done,
    send: (message) => socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message)),
    close() {
      wanted = false;
      socket.close();
    },
  };
}
