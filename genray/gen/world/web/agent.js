// A policy that plays inside the world model: it sees the painted screens as it sees its game's
// (`genray/rl/crop.py`, `lanes.py` and `networks.py` in JavaScript).
//
// An image is a flat Float32Array with a property `shape`: [channels, height, width].
import { linear, plus } from "./network.js";

/** A convolution without padding. */
function convolution(image, { weight, bias, stride }) {
  const [inputs, height, width] = image.shape,
    [outputs, , side] = weight.shape,
    rows = Math.floor((height - side) / stride) + 1,
    columns = Math.floor((width - side) / stride) + 1,
    patch = new Float32Array(inputs * side * side),
    result = Object.assign(new Float32Array(outputs * rows * columns), {
      shape: [outputs, rows, columns],
    }),
    matrix = Object.assign(weight.subarray(0), { shape: [outputs, patch.length] });
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) {
      let at = 0;
      for (let channel = 0; channel < inputs; channel++) {
        for (let row = 0; row < side; row++, at += side) {
          const from = (channel * height + y * stride + row) * width + x * stride;
          patch.set(image.subarray(from, from + side), at);
        }
      }
      const sums = linear(matrix, patch, bias);
      for (let o = 0; o < outputs; o++) result[(o * rows + y) * columns + x] = sums[o];
    }
  }
  return result;
}

/** A LayerNorm, a new array. */
function normalised(x, { weight, bias, epsilon }) {
  const mean = x.reduce((a, b) => a + b, 0) / x.length,
    variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / x.length,
    factor = 1 / Math.sqrt(variance + epsilon);
  return x.map((each, i) => (each - mean) * factor * weight[i] + bias[i]);
}

const LAYERS = {
  convolution,
  linear: (x, { weight, bias }) => linear(weight, x, bias),
  norm: normalised,
  relu: (x) => {
    for (let i = 0; i < x.length; i++) if (x[i] < 0) x[i] = 0;
    return x;
  },
  flatten: (x) => x,
};

function through(layers, x) {
  return layers.reduce((each, layer) => LAYERS[layer.kind](each, layer), x);
}

/** The mean of the distribution with these logits on the support. */
function mean(logits, support) {
  const most = Math.max(...logits);
  let total = 0,
    sum = 0;
  logits.forEach((logit, z) => {
    const weight = Math.exp(logit - most);
    total += weight;
    sum += weight * support[z];
  });
  return sum / total;
}

/** The nearest whole number; halves go to the even one, as in NumPy. */
function rounded(x) {
  const near = Math.round(x);
  return near - x === 0.5 && near % 2 ? near - 1 : near;
}

export class Agent {
  /** `parts`: see `agent_parts` in genray/commands/world_agent.py. */
  constructor(parts) {
    Object.assign(this, parts);
    this.height = this.rows.first.length;
    this.breadth = this.columns.first.length;
  }

  /** Begins a game with this screen (colours). */
  begin(screen) {
    const frame = this.frame(screen),
      before = this.start === "repeat" ? frame : new Uint8Array(frame.length);
    this.frames = [...Array(this.stack - 1).fill(before), frame];
    this.acted = Array(this.past).fill(-1); // the newest action first
    this.age = 0;
  }

  /** Shows the agent the screen that followed an action, its own or a person's. */
  push(screen, action) {
    this.frames = [...this.frames.slice(1), this.frame(screen)];
    this.acted = [action, ...this.acted].slice(0, this.past);
    this.age++;
  }

  /** The action of the largest value. */
  act() {
    if (this.start === "wait" && this.age < this.stack - 1) return 0; // its stack is not full
    const values = this.values();
    return values.indexOf(Math.max(...values));
  }

  /** The value of each action: the mean over the members. */
  values() {
    const image = this.input(),
      all = this.members.map((member) => this.valuesOf(member, image));
    return all.reduce(plus).map((sum) => sum / all.length);
  }

  /** Part of a screen in grey and smaller: means over the areas of the pixels, Uint8Array. */
  frame(screen) {
    const result = new Uint8Array(this.height * this.breadth),
      strip = new Float32Array(this.width),
      { rows, columns } = this,
      high = rows.share.shape[1],
      wide = columns.share.shape[1];
    for (let r = 0; r < this.height; r++) {
      strip.fill(0);
      for (let k = 0; k < high; k++) {
        const share = rows.share[r * high + k],
          from = (this.top + rows.first[r] + k) * this.width;
        if (share > 0) {
          for (let w = 0; w < this.width; w++) strip[w] += share * this.grey[screen[from + w]];
        }
      }
      for (let c = 0; c < this.breadth; c++) {
        let total = 0;
        for (let k = 0; k < wide; k++) {
          const share = columns.share[c * wide + k];
          if (share > 0) total += share * strip[columns.first[c] + k];
        }
        result[r * this.breadth + c] = rounded(total);
      }
    }
    return result;
  }

  /** The network's input: the frames from 0 to 1, minus the median frame, times the gain. */
  input() {
    const size = this.height * this.breadth,
      image = new Float32Array(this.stack * size);
    this.frames.forEach((frame, number) => {
      for (let i = 0; i < size; i++) {
        image[number * size + i] = (frame[i] / 255 - (this.median ? this.median[i] : 0)) * this.gain;
      }
    });
    return Object.assign(image, { shape: [this.stack, this.height, this.breadth] });
  }

  valuesOf({ encoder, hidden, advantage, value }, image) {
    const encoded = through(encoder, image),
      known = this.acted.flatMap((action) =>
        Array.from({ length: this.actions }, (_, number) => Number(number === action)),
      ),
      features = through(hidden, known.length ? Float32Array.of(...encoded, ...known) : encoded),
      outputs = through(advantage, features),
      common = value.length ? through(value, features) : null,
      size = outputs.length / this.actions, // per action: atoms of a distribution, or one value
      numbers = Array.from({ length: this.actions }, (_, action) => action);
    if (common) {
      for (let z = 0; z < size; z++) {
        const sum = numbers.reduce((total, action) => total + outputs[action * size + z], 0),
          moved = common[z] - sum / this.actions;
        for (const action of numbers) outputs[action * size + z] += moved;
      }
    }
    if (!this.support) return outputs;
    return Float32Array.from(numbers, (action) =>
      mean(outputs.subarray(action * size, (action + 1) * size), this.support),
    );
  }
}
