// Paints sprites: `Language.decode` of genray/gen/sprites/tokens.py in JavaScript.

const TRANSPARENT = 255;

export class Screen {
  /**
   * `palette`: RGB of each colour; `background`: colours; `backgrounds`: whether shapes of group 0
   * are whole screens; `looks`: [shape, run] of each look; `shapes`: [group, height, width];
   * `pixels`: of all shapes, one after the other; `runs`: [length, dy, dx]; `layers`: the groups in
   * the order in which they are painted.
   */
  constructor(parts) {
    Object.assign(this, parts);
    [this.height, this.width] = this.background.shape;
    this.layer = new Map(this.layers.map((group, number) => [group, number]));
    this.starts = [];
    let start = 0;
    for (const [, height, width] of this.shapes) {
      this.starts.push(start);
      start += height * width;
    }
  }

  /** The colours of a screen with these sprites, Uint8Array [height · width]. */
  paint(sprites) {
    const screen = Uint8Array.from(this.background);
    const tokens = sprites.map(({ look, y, x }) => {
      const [shape, run] = this.looks[look],
        group = this.shapes[shape][0];
      return [this.layer.get(group), group, y, x, shape, run];
    });
    tokens.sort((a, b) => {
      const differs = a.findIndex((each, place) => each !== b[place]);
      return differs < 0 ? 0 : a[differs] - b[differs];
    });
    for (const [, group, y, x, shape, run] of tokens) {
      const [, height, width] = this.shapes[shape],
        start = this.starts[shape];
      if (this.backgrounds && group === 0) {
        screen.set(this.pixels.subarray(start, start + screen.length));
        continue;
      }
      const [length, dy, dx] = this.runs[run];
      for (let number = 0; number < length; number++) {
        this.stamp(screen, start, height, width, y + number * dy, x + number * dx);
      }
    }
    return screen;
  }

  stamp(screen, start, height, width, y, x) {
    for (let row = 0; row < height && y + row < this.height; row++) {
      for (let column = 0; column < width && x + column < this.width; column++) {
        const colour = this.pixels[start + row * width + column];
        if (colour !== TRANSPARENT) screen[(y + row) * this.width + x + column] = colour;
      }
    }
  }

  /** Draws a screen on a canvas of its size. */
  show(context, screen) {
    const image = context.createImageData(this.width, this.height);
    for (let place = 0, at = 0; place < screen.length; place++, at += 4) {
      const colour = this.palette[screen[place]];
      image.data[at] = colour[0];
      image.data[at + 1] = colour[1];
      image.data[at + 2] = colour[2];
      image.data[at + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }
}
