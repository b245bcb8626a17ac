// A game inside a world model, without a page: reads the model, and makes steps.
import { Agent } from "./agent.js";
import { Drawer } from "./drawer.js";
import { Network } from "./network.js";
import { Screen } from "./screen.js";
import { Sprite, State, Track } from "./state.js";

const TYPES = { f4: Float32Array, u1: Uint8Array, i2: Int16Array, f2: Uint16Array };

/** The value of a 16-bit floating-point number. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  if (!exponent) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Replaces the places of arrays, {at, shape, type}, by the arrays of `buffer`. */
export function unpacked(parts, buffer) {
  if (Array.isArray(parts)) return parts.map((each) => unpacked(each, buffer));
  if (parts === null || typeof parts !== "object") return parts;
  if (parts.at === undefined) {
    return Object.fromEntries(
      Object.entries(parts).map(([name, each]) => [name, unpacked(each, buffer)]),
    );
  }
  const { at, shape, type } = parts,
    stored = new TYPES[type](buffer, at, shape.reduce((a, b) => a * b, 1)),
    array = type === "f2" ? Float32Array.from(stored, half) : stored;
  return Object.assign(array, { shape });
}

/** Random numbers in [0, 1) from a whole number (mulberry32). */
function randomNumbers(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export class Game {
  constructor(parts) {
    this.about = parts.about; // title, actions, rewards, usual, unusual, decisions, …
    this.starts = parts.starts;
    this.looks = parts.looks;
    this.screen = new Screen(parts.screen);
    this.drawer = new Drawer(new Network(parts.network), parts.drawer);
    this.agent = parts.agent ? new Agent(parts.agent) : null;
  }

  /** Begins with a real screen; the same seed and the same actions give the same game. */
  begin(start, seed) {
    const number = Math.max(0, Math.trunc(start) || 0) % this.starts.length,
      { tracks, actions, clocks } = this.starts[number];
    this.state = new State(
      this.looks,
      tracks.map(([moves, ...numbers]) => new Track(...numbers, moves)),
      actions,
      clocks,
    );
    this.random = randomNumbers(seed);
    Object.assign(this, { steps: 0, score: 0, lost: 0, over: false, nats: undefined, colours: undefined });
    this.agent?.begin(this.painted());
  }

  /** Draws the next screen. `chances`: random numbers to use instead of the game's own. */
  step(action, chances) {
    chances ??= Float64Array.from({ length: 4 * this.about.decisions }, this.random);
    this.state.act(action);
    const drawn = this.drawer.draw(this.state, chances),
      [reward, life, done] = drawn.events;
    this.state.follow(drawn);
    this.steps++;
    this.score += this.about.rewards[reward];
    this.lost += life;
    this.over = Boolean(done);
    this.nats = drawn.nats;
    this.colours = undefined;
    this.agent?.push(this.painted(), action);
    return drawn;
  }

  /** Whether the last step was as likely as 99.5% of real steps are. */
  get known() {
    return !this.nats || this.about.unusual <= 0 || this.nats <= this.about.unusual;
  }

  /** What is on the screen: colours, Uint8Array. */
  painted() {
    this.colours ??= this.screen.paint(
      this.state.visible().map(({ look, y, x }) => new Sprite(look, y, x)),
    );
    return this.colours;
  }
}
