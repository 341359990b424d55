import assert from 'node:assert/strict';
import { inflateSync } from 'node:zlib';

/** A PNG of 8 bits a channel, as its pixels: `at(x, y)` gives [red, green, blue, alpha]. */
export interface Pixels {
  readonly width: number;
  readonly height: number;
  at(x: number, y: number): readonly number[];
}

const CHANNELS = 4;

/** Decodes what resvg writes: RGBA, not interlaced. */
export function pixelsOf(png: Uint8Array): Pixels {
  const file = Buffer.from(png);
  assert.equal(file.toString('latin1', 1, 4), 'PNG');
  const [width, height] = [file.readUInt32BE(16), file.readUInt32BE(20)];
  assert.deepEqual([...file.subarray(24, 29)], [8, 6, 0, 0, 0]);
  const parts: Buffer[] = [];
  for (let at = 8; at < file.length; at += 12 + file.readUInt32BE(at)) {
    const data = file.subarray(at + 8, at + 8 + file.readUInt32BE(at));
    if (file.toString('latin1', at + 4, at + 8) === 'IDAT') parts.push(data);
  }
  const rows = unfilter(inflateSync(Buffer.concat(parts)), width * CHANNELS, height);
  return {
    width,
    height,
    at: (x, y) => [...rows.subarray((y * width + x) * CHANNELS, (y * width + x + 1) * CHANNELS)],
  };
}

function unfilter(filtered: Buffer, stride: number, height: number): Buffer {
  const rows = Buffer.alloc(stride * height);
  for (let y = 0; y < height; y += 1) {
    const filter = filtered[y * (stride + 1)];
    for (let x = 0; x < stride; x += 1) {
      const left = x < CHANNELS ? 0 : rows[y * stride + x - CHANNELS];
      const up = y === 0 ? 0 : rows[(y - 1) * stride + x];
      const corner = y === 0 || x < CHANNELS ? 0 : rows[(y - 1) * stride + x - CHANNELS];
      const guesses = [0, left, up, (left + up) >> 1, paeth(left, up, corner)];
      rows[y * stride + x] = filtered[y * (stride + 1) + 1 + x] + guesses[filter];
    }
  }
  return rows;
}

function paeth(left: number, up: number, corner: number): number {
  const guess = left + up - corner;
  const closest = [left, up, corner].map((value) => Math.abs(guess - value));
  if (closest[0] <= closest[1] && closest[0] <= closest[2]) return left;
  return closest[1] <= closest[2] ? up : corner;
}
