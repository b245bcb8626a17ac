// The network of a world model, for one screen at a time: `genray/gen/world/quick_network.py` and
// `quick_heads.py` in JavaScript, with the same names. There, each norm is already part of the
// linear layer after it.
//
// Arrays are flat Float32Arrays with a property `shape`. D: width of the network, R: numbers that
// describe an offset, N: heads, d = D / N.

const NOWHERE = -1; // the coordinate of something without a place

/** The error function; the error is below 2e-7 (Abramowitz and Stegun, formula 7.1.26). */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const sum =
    t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const result = 1 - sum * Math.exp(-x * x);
  return x < 0 ? -result : result;
}

/** GELU of every number, in place. */
export function gelu(x) {
  for (let i = 0; i < x.length; i++) x[i] = 0.5 * x[i] * (1 + erf(x[i] * Math.SQRT1_2));
  return x;
}

/** a + b, a new array. */
export function plus(a, b) {
  const sum = new Float32Array(a.length);
  for (let i = 0; i < sum.length; i++) sum[i] = a[i] + b[i];
  return sum;
}

/** Row `number` of a matrix, without a copy. */
export function row(matrix, number) {
  const width = matrix.shape[1];
  return matrix.subarray(number * width, (number + 1) * width);
}

/** factor · W x + bias, a new array. */
export function linear(weight, x, bias, factor = 1) {
  const [outputs, inputs] = weight.shape;
  const result = new Float32Array(outputs);
  for (let o = 0, at = 0; o < outputs; o++) {
    let a = 0,
      b = 0,
      i = 0;
    for (; i + 1 < inputs; i += 2, at += 2) {
      a += weight[at] * x[i];
      b += weight[at + 1] * x[i + 1];
    }
    if (i < inputs) a += weight[at++] * x[i];
    result[o] = (a + b) * factor + bias[o];
  }
  return result;
}

/** A LayerNorm, and a linear layer after it. */
class NormLinear {
  constructor({ weight, bias, epsilon }) {
    Object.assign(this, { weight, bias, epsilon });
  }

  run(x) {
    let sum = 0,
      squares = 0;
    for (let i = 0; i < x.length; i++) {
      sum += x[i];
      squares += x[i] * x[i];
    }
    const mean = sum / x.length,
      variance = Math.max(squares / x.length - mean * mean, 0);
    return linear(this.weight, x, this.bias, 1 / Math.sqrt(variance + this.epsilon));
  }
}

/** A LayerNorm, a linear layer, GELU and another linear layer. */
class Mlp {
  constructor({ first, weight, bias }) {
    this.first = new NormLinear(first);
    Object.assign(this, { weight, bias });
  }

  run(x) {
    return linear(this.weight, gelu(this.first.run(x)), this.bias);
  }
}

/** The descriptions of all offsets between two places, in one table. */
class Offsets {
  constructor({ y, x, weight, bias }) {
    const [rows, size] = y.shape,
      columns = x.shape[0];
    this.size = size;
    // The last row of y and of x, and so of the table, is that of an offset from or to nowhere.
    this.columns = columns - 1;
    this.last = (rows - 1) * this.columns;
    this.zero = ((rows - 2) / 2) * this.columns + (columns - 2) / 2;
    this.nowhere = 4 * this.last;
    this.table = new Float32Array((this.last + 1) * size);
    for (let place = 0; place <= this.last; place++) {
      const dy = place === this.last ? rows - 1 : Math.floor(place / this.columns),
        dx = place === this.last ? columns - 1 : place % this.columns;
      this.table.set(linear(weight, gelu(plus(row(y, dy), row(x, dx))), bias), place * size);
    }
  }

  /** The code of a place: the difference of two codes is a row of the table. */
  code(y, x) {
    return y === NOWHERE ? this.nowhere : y * this.columns + x;
  }

  /** The row of the table for the offset of two codes, of which the first is that of a place. */
  number(from, to) {
    return Math.min(to + this.zero - from, this.last);
  }
}

/** A transformer layer whose attention reads offsets. */
class Layer {
  constructor({ query, memory, bias, out, out_bias, mlp }) {
    this.queries = new NormLinear(query);
    this.memory = new NormLinear(memory);
    this.mlp = new Mlp(mlp);
    Object.assign(this, { bias, out, out_bias });
  }

  /**
   * Applies the layer to one position. `known`: keys and values of the `count` entries that it
   * sees, each one array [2 · D]; `pairs`: for each of them, a row of the table of offsets.
   */
  run(x, known, count, pairs, offsets) {
    const query = this.queries.run(x),
      [size, heads] = this.bias.shape,
      width = x.length,
      side = width / heads,
      read = new Float32Array(width + heads * size),
      share = new Float64Array(count);
    for (let head = 0; head < heads; head++) {
      let most = -Infinity,
        total = 0;
      for (let t = 0; t < count; t++) {
        let sum = 0;
        for (let i = 0, at = head * side; i < side; i++, at++) sum += query[at] * known[t][at];
        for (let r = 0, at = pairs[t] * size; r < size; r++) {
          sum += offsets.table[at + r] * this.bias[r * heads + head];
        }
        share[t] = sum;
        if (sum > most) most = sum;
      }
      for (let t = 0; t < count; t++) total += share[t] = Math.exp(share[t] - most);
      for (let t = 0; t < count; t++) {
        const part = share[t] / total;
        for (let i = 0, at = head * side; i < side; i++, at++) read[at] += part * known[t][width + at];
        for (let r = 0, at = pairs[t] * size; r < size; r++) {
          read[width + head * size + r] += part * offsets.table[at + r];
        }
      }
    }
    x = plus(x, linear(this.out, read, this.out_bias));
    return plus(x, this.mlp.run(x));
  }
}

export class Network {
  constructor(parts) {
    Object.assign(this, parts.tables); // look, y, x, track, first, columns, clock, clocks, …
    this.situation = new NormLinear(parts.situation);
    this.normIn = new NormLinear(parts.norm_in);
    this.normOut = new NormLinear(parts.norm_out);
    this.layers = parts.layers.map((each) => new Layer(each));
    this.seen = new Offsets(parts.offsets_seen);
    this.causal = new Layer(parts.causal);
    this.offsets = new Offsets(parts.offsets);
    this.heads = new Heads(parts.heads);
  }

  /** Runs the layers between all tracks: `whole`, `tracks` and `codes` of the tracks' places. */
  see(state, tracks) {
    const clocks = state.clocks.flatMap((clock) => [...row(this.clock, clock)]);
    let now = linear(this.clocks, clocks, this.clocks_bias);
    this.action.forEach((table, number) => {
      now = plus(now, row(table, state.actions[number] ?? this.none));
    });
    const situation = this.situation.run(now),
      codes = tracks.map((track) => this.seen.code(track.y, track.x)),
      rows = [this.whole, ...tracks.map((track) => this.described(track))];
    let x = rows.map((each) => this.normIn.run(plus(each, situation)));
    const places = [this.seen.nowhere, ...codes],
      nowhere = places.map(() => this.seen.last),
      pairs = [nowhere, ...codes.map((from) => places.map((to) => this.seen.number(from, to)))];
    for (const layer of this.layers) {
      const known = x.map((each) => layer.memory.run(each));
      x = x.map((each, number) => layer.run(each, known, x.length, pairs[number], this.seen));
    }
    return { whole: x[0], tracks: x.slice(1), codes };
  }

  /** The sum of the embeddings of everything that is known of a track. */
  described(track) {
    const past = track.past(),
      sum = new Float32Array(this.whole.length);
    this.columns.forEach((column, part) => {
      const entry = row(this.track, past[column] + this.first[part]);
      for (let i = 0; i < sum.length; i++) sum[i] += entry[i];
    });
    return sum;
  }
}

/** The heads, which give the logits of every kind of decision. */
class Heads {
  constructor({ move, y, x, group, events, event_in, moved, group_in, looks, group_of }) {
    this.move = new Mlp(move);
    this.y = new Mlp(y);
    this.x = new Mlp(x);
    this.events = events.map((each) => new Mlp(each));
    this.looks = looks.map((each) => new LookHeads(each));
    this.groups = new Mlp(group);
    Object.assign(this, { event_in, moved, group_in, group_of });
  }

  /** What the decisions after the events know of them. */
  given(values) {
    return values.map((value, number) => row(this.event_in[number], value)).reduce(plus);
  }

  /** The logits of a new sprite's group; one without a free look has −∞. */
  group(state, free) {
    const logits = this.groups.run(state);
    this.looks.forEach((looks, group) => {
      if (!looks.numbers.some((look) => free[look])) logits[group] = -Infinity;
    });
    return logits;
  }
}

/** The heads of the looks of one group. */
class LookHeads {
  constructor({ numbers, next, born }) {
    this.numbers = [...numbers];
    this.index = new Map(this.numbers.map((look, index) => [look, index]));
    this.nexts = new Mlp(next);
    this.borns = new Mlp(born);
  }

  /** The logits of a track's next look. */
  next(state, track) {
    const both = this.nexts.run(state),
      logits = both.subarray(0, both.length - 2);
    [track.look, track.previous].forEach((look, number) => {
      if (this.index.has(look)) logits[this.index.get(look)] += both[logits.length + number];
    });
    return logits;
  }

  /** The logits of a new sprite's look; those that are not free have −∞, unless none is. */
  born(context, free) {
    const logits = this.borns.run(context);
    if (this.numbers.some((look) => free[look])) {
      this.numbers.forEach((look, index) => {
        if (!free[look]) logits[index] = -Infinity;
      });
    }
    return logits;
  }
}
