// The address of the page holds what is shown: the model, the task and its settings. A copied
// address therefore shows the same again, e.g. ?model=digits-gan&do=generate&seed=7.
import { useEffect, useState } from "../vendor/htm-preact-standalone.module.js";

const changed = new EventTarget();

/** The settings in the address, an object of texts. */
export const read = () => Object.fromEntries(new URLSearchParams(location.search));

/** The address with these settings; empty values are left out. */
export function addressOf(settings) {
  const kept = Object.entries(settings).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(kept).toString();
  return query ? `?${query}` : "./";
}

/** Shows another address. `replace`: without a new entry in the browser's history. */
export function go(settings, { replace = false } = {}) {
  const address = addressOf(settings);
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  changed.dispatchEvent(new Event("change"));
}

/** Changes some settings of the address in place, while a user moves a control. */
export const note = (settings) =>
  history.replaceState(null, "", addressOf({ ...read(), ...settings }));

/** Returns the settings in the address, and renders again when another address is shown. */
export function useAddress() {
  const [settings, setSettings] = useState(read());
  useEffect(() => {
    const update = () => setSettings(read());
    changed.addEventListener("change", update);
    window.addEventListener("popstate", update);
    return () => {
      changed.removeEventListener("change", update);
      window.removeEventListener("popstate", update);
    };
  }, []);
  return settings;
}

/** Attributes of a link inside the page. A click with a modifier key opens a new tab as usual. */
export function linkTo(settings) {
  return {
    href: addressOf(settings),
    onClick(event) {
      if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
      event.preventDefault();
      go(settings);
      window.scrollTo(0, 0);
    },
  };
}

/** A whole number from the address, or `otherwise`. */
export function whole(text, otherwise) {
  return /^\d{1,15}$/.test(text ?? "") ? Number(text) : otherwise;
}
