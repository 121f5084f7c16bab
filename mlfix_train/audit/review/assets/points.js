// Points drawn into an array of pixels: some hundreds of thousands at each frame, with or without a graphics card.

import { clamp } from "./elements.js";

const CELLS = 128; // cells of the index, in each direction
const UNITS = 65536; // positions are below
const NOWHERE = 65535;

/** Returns an array from base64 of its bytes. */
export function unpack(text, Type) {
  const bytes = atob(text),
    array = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) array[i] = bytes.charCodeAt(i);
  return new Type(array.buffer);
}
/** Returns red, green and blue, 0 to 255, as one number, as pixels hold it. */
export const packColor = ([red, green, blue]) => ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;

/** Returns a color of CSS as one number. */
export function pixelColor(ctx, color) {
  ctx.fillStyle = color;
  const parts = /^#(..)(..)(..)/.exec(ctx.fillStyle);
  return packColor(parts ? parts.slice(1).map((part) => parseInt(part, 16)) : [128, 128, 128]);
}

/** Points in the order in which they are drawn, each with a color. */
export class Points {
  /** `positions` are x and y of each sample. */
  constructor(positions) {
    this.positions = positions;
    this.count = positions.length / 2;
    this.order = new Uint32Array(0);
    this.colors = new Uint32Array(0);
    this.index();
  }
  has(row) {
    return this.positions[2 * row] !== NOWHERE;
  }
  /** Sorts samples into cells, so that the nearest one is found at once. */
  index() {
    const cellOf = (row) =>
      ((this.positions[2 * row + 1] * CELLS) >> 16) * CELLS + ((this.positions[2 * row] * CELLS) >> 16);
    this.starts = new Uint32Array(CELLS * CELLS + 1);
    for (let row = 0; row < this.count; row++) if (this.has(row)) this.starts[cellOf(row) + 1]++;
    for (let cell = 0; cell < CELLS * CELLS; cell++) this.starts[cell + 1] += this.starts[cell];
    const next = this.starts.slice();
    this.rows = new Uint32Array(this.starts[CELLS * CELLS]);
    for (let row = 0; row < this.count; row++) if (this.has(row)) this.rows[next[cellOf(row)]++] = row;
  }
  /** Returns the sample nearest to a position, at most `radius` away, for which `accepts` holds; -1 if there is none. */
  nearest(x, y, radius, accepts) {
    const low = (value) => clamp(Math.floor(((value - radius) * CELLS) / UNITS), 0, CELLS - 1),
      high = (value) => clamp(Math.floor(((value + radius) * CELLS) / UNITS), 0, CELLS - 1);
    let best = -1,
      least = radius * radius;
    for (let j = low(y); j <= high(y); j++)
      for (let k = this.starts[j * CELLS + low(x)]; k < this.starts[j * CELLS + high(x) + 1]; k++) {
        const row = this.rows[k],
          dx = this.positions[2 * row] - x,
          dy = this.positions[2 * row + 1] - y,
          distance = dx * dx + dy * dy;
        if (distance <= least && accepts(row)) {
          least = distance;
          best = row;
        }
      }
    return best;
  }
  /** Sets what is drawn: samples in this order, and the color of each. */
  arrange(order, colors) {
    this.order = order;
    this.colors = colors;
    this.x = new Uint16Array(order.length);
    this.y = new Uint16Array(order.length);
    for (let i = 0; i < order.length; i++) {
      this.x[i] = this.positions[2 * order[i]];
      this.y[i] = this.positions[2 * order[i] + 1];
    }
  }
  /** Draws points `from` to before `to` as squares of `size` pixels. */
  draw(pixels, width, height, { scale, left, top }, size, from = 0, to = this.x.length) {
    const { x, y, colors } = this,
      half = size >> 1,
      lastX = width - size,
      lastY = height - size;
    for (let i = from; i < to; i++) {
      const px = Math.floor(scale * x[i] + left) - half,
        py = Math.floor(scale * y[i] + top) - half;
      if (px < 0 || py < 0 || px > lastX || py > lastY) continue;
      const color = colors[i];
      let at = py * width + px;
      for (let row = 0; row < size; row++, at += width) for (let k = at; k < at + size; k++) pixels[k] = color;
    }
  }
}
