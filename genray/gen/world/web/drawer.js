// Draws the next screen, one decision after the other: `genray/gen/world/quick_sampling.py` in
// JavaScript, with the same names.
import { plus, row } from "./network.js";
import { Sprite } from "./state.js";

const DONE = 2; // the last of the events: reward, lost life, ending
const FIELDS = 4; // random numbers of a decision

export class Drawer {
  constructor(network, { sampling, repeat, moves, most, classes, alike }) {
    Object.assign(this, { network, sampling, moves, most, classes, alike });
    this.repeat = Math.log(repeat);
  }

  /**
   * The next step of a state that knows its action: {sprites, births, events, nats}.
   *
   * `chances`: numbers of U[0, 1), FIELDS for each decision; null: the likeliest values.
   */
  draw(state, chances) {
    const { network: net, sampling } = this,
      { heads } = net,
      tracks = state.tracks.slice(0, sampling.tracks),
      pick = new Pick(sampling, chances),
      seen = net.see(state, tracks);
    let events = null;
    if (sampling.events_first) {
      events = this.events(net.normOut.run(plus(seen.whole, net.asked_events)), pick);
      pick.decision++;
      const given = heads.given(events);
      seen.whole = plus(seen.whole, given);
      seen.tracks = seen.tracks.map((each) => plus(each, given));
    }
    const known = new Known(net);
    known.put(seen.whole, net.offsets.nowhere);
    const count = new Array(Math.max(...this.classes) + 1).fill(0);
    // Tracks.
    const sprites = tracks.map((track, number) => {
      const asked = known.ask(seen.tracks[number], seen.codes[number]),
        [sprite, entry] = this.follow(track, seen.tracks[number], asked, pick);
      known.put(entry, sprite ? net.offsets.code(sprite.y, sprite.x) : net.offsets.nowhere);
      if (sprite) count[this.classes[sprite.look]]++;
      pick.decision++;
      return sprite;
    });
    // Births, until "no more".
    const births = [];
    for (let number = 0; number <= sampling.births; number++) {
      const asked = known.ask(plus(seen.whole, row(net.asked, number))),
        free = this.classes.map(
          (each, look) => number < sampling.births && count[each] < this.alike[look],
        ),
        group = pick.take(heads.group(asked, free), 0, true);
      if (group === heads.looks.length) {
        pick.decision++;
        break;
      }
      const [sprite, entry] = this.born(group, asked, free, pick);
      births.push(sprite);
      known.put(entry, net.offsets.code(sprite.y, sprite.x));
      count[this.classes[sprite.look]]++;
      pick.decision++;
    }
    events ??= this.events(known.ask(plus(seen.whole, net.asked_events)), pick);
    return { sprites, births, events, nats: pick.nats };
  }

  /** What becomes of a track, and its description for later decisions. */
  follow(track, described, state, pick) {
    const { heads } = this.network,
      move = pick.take(heads.move.run(state), 0),
      moved = row(heads.moved, move),
      entry = plus(described, moved);
    if (move === this.moves.length) return [null, entry];
    const looks = heads.looks[heads.group_of[track.look]],
      value = pick.take(looks.next(plus(state, moved), track), 1),
      [dy, dx] = this.moves[move],
      sprite = this.inside(looks.numbers[value], track.y + dy, track.x + dx);
    return [sprite, plus(entry, this.described(sprite))];
  }

  /** A new sprite of a group, and its description. */
  born(group, state, free, pick) {
    const { network: net } = this,
      { heads } = net;
    let context = plus(state, row(heads.group_in, group));
    const y = pick.take(heads.y.run(context), 1);
    context = plus(context, row(net.y, y));
    const x = pick.take(heads.x.run(context), 2);
    context = plus(context, row(net.x, x));
    const looks = heads.looks[group],
      sprite = this.inside(looks.numbers[pick.take(looks.born(context, free), 3)], y, x);
    return [sprite, plus(net.birth, this.described(sprite))];
  }

  described({ look, y, x }) {
    const { network: net } = this;
    return plus(plus(row(net.look, look), row(net.y, y)), row(net.x, x));
  }

  /** A sprite, moved into the screen. */
  inside(look, y, x) {
    const [most_y, most_x] = this.most[look];
    return new Sprite(look, Math.min(Math.max(y, 0), most_y), Math.min(Math.max(x, 0), most_x));
  }

  /** Reward, lost life and ending. Each is corrected for the repeated training steps. */
  events(state, pick) {
    const { heads } = this.network,
      values = [];
    heads.events.forEach((event, number) => {
      const logits = event.run(state);
      if (!values.some(Boolean)) {
        for (let i = 1; i < logits.length; i++) logits[i] -= this.repeat;
      }
      values.push(pick.take(logits, number, true));
      if (number < DONE) state = plus(state, row(heads.event_in[number], values[number]));
    });
    return values;
  }
}

/** The decisions so far of one step, for the causal layer. */
class Known {
  constructor(network) {
    Object.assign(this, { network, entries: [], codes: [] });
  }

  put(entry, code) {
    this.entries.push(this.network.causal.memory.run(entry));
    this.codes.push(code);
  }

  /** The state of the next decision. `code`: undefined for a decision without a place. */
  ask(asked, code) {
    const { causal, offsets, normOut } = this.network,
      pairs = this.codes.map((to) =>
        code === undefined ? offsets.last : offsets.number(code, to),
      );
    return normOut.run(causal.run(asked, this.entries, this.entries.length, pairs, offsets));
  }
}

/** Draws the decisions of one step, and adds up their −ln p. */
class Pick {
  constructor(sampling, chances) {
    Object.assign(this, { sampling, chances, decision: 0, nats: 0 });
  }

  /** A value. `field`: which of the decision's random numbers is used. */
  take(logits, field, rare = false) {
    let best = 0,
      total = 0;
    for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
    const share = new Float64Array(logits.length);
    for (let i = 0; i < share.length; i++) total += share[i] = Math.exp(logits[i] - logits[best]);
    let value = best;
    if (this.chances) {
      const chance = this.chances[this.decision * FIELDS + field];
      value = rare ? this.rarely(share, total, best, chance) : this.likely(share, total, best, chance);
    }
    this.nats += Math.log(total) - (logits[value] - logits[best]);
    return value;
  }

  /** One of the values that are likelier than the floor. `share`: p · `total`. */
  rarely(share, total, best, chance) {
    const least = this.sampling.floor * total;
    if (total - 1 < least) return best; // all others together are less likely than the floor
    return invert(
      share.map((each, value) => (each >= least || value === best ? each : 0)),
      chance,
    );
  }

  /** One of the likeliest values, which together have the probability `top_p`. */
  likely(share, total, best, chance) {
    const most = this.sampling.top_p * total;
    if (most <= 1) return best; // the likeliest value alone has it
    const order = [...share.keys()].sort((a, b) => share[b] - share[a] || a - b);
    let sum = 0;
    for (const value of order) {
      const before = sum;
      sum += share[value];
      if (before >= most) share[value] = 0;
    }
    return invert(share, chance);
  }
}

/** The value at which the cumulative probability passes `chance`. */
function invert(share, chance) {
  const total = share.reduce((a, b) => a + b, 0);
  let sum = 0,
    last = 0;
  for (let value = 0; value < share.length; value++) {
    if (!share[value]) continue;
    sum += share[value];
    last = value;
    if (sum > chance * total) return value;
  }
  return last; // rounding may lead past the last value
}
