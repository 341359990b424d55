import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { NOTHING } from '../model/palette.ts';
import type { Scene } from '../model/scene.ts';
import { line, type Line } from '../paint/line.ts';
import { bytes, counted, duration } from '../paint/units.ts';

const SLICES = 20;

/** A timeline in words: what was read in each part of the time, and how much of it is what. */
export function sliceLines({ accesses, palette, whole }: Scene): Line[] {
  const sliceUs = whole.timeTo / SLICES;
  const slices = Array.from({ length: SLICES }, () => new Map<number, number>());
  const records = new Float64Array(SLICES);
  for (let i = 0; i < accesses.count; i += 1) {
    const code = accesses.codes[i];
    if (code === NOTHING) continue;
    const at = Math.min(SLICES - 1, Math.floor(accesses.timeUs[i] / sliceUs));
    slices[at].set(code, (slices[at].get(code) ?? 0) + accesses.sectors[i] * SECTOR_BYTES);
    records[at] += 1;
  }
  return slices.map((slice, index) => {
    const from = duration((index * sliceUs) / 1000);
    const to = duration(((index + 1) * sliceUs) / 1000);
    const parts = [...slice]
      .sort((a, b) => b[1] - a[1])
      .map(([code, size]) => `${bytes(size)} ${palette[code - 1].short}`);
    const what =
      parts.length === 0 ? 'nothing' : `${counted(records[index], 'record')}: ${parts.join('; ')}`;
    return line(` ${from} to ${to}: ${what}`);
  });
}
