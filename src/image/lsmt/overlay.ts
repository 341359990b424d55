import { ZERO_LAYER } from '../stack-map.ts';
import type { LsmtEntryColumns } from './index-entries.ts';

/** Sorted segments that do not overlap, in growing columns; only the first `count` rows count. */
export interface Segments {
  count: number;
  readonly start: Float64Array;
  readonly sectors: Uint32Array;
  readonly mapped: Float64Array;
  /** Layer number, or ZERO_LAYER. */
  readonly layer: Uint16Array;
}

/** Joined segments stay below this, so that their length is a small integer everywhere. */
const JOINED_SECTORS_MAX = 2 ** 30;

/** A layer's entries below `sectorEnd` as segments. */
export function segmentsOfEntries(
  entries: LsmtEntryColumns,
  layer: number,
  sectorEnd: number,
): Segments {
  const out = allocate(entries.count);
  for (let entry = 0; entry < entries.count; entry += 1) {
    const start = entries.start[entry];
    if (start >= sectorEnd) break;
    const sectors = Math.min(entries.sectors[entry], sectorEnd - start);
    const isZeroed = entries.zeroed[entry] === 1;
    append(out, start, sectors, entries.mapped[entry], isZeroed ? ZERO_LAYER : layer);
  }
  return out;
}

/**
 * Lays `upper` over `lower`:
 *
 *   upper      [---A---)          [--B--)
 *   lower   [-1-)  [------2----------)[--3--)
 *   out     [1)[---A---)[---2-----)[--B--)[3)
 */
export function overlay(lower: Segments, upper: Segments): Segments {
  // Every upper segment splits at most one lower segment in two.
  const out = allocate(lower.count + 2 * upper.count);
  let next = 0;
  let lba = 0;
  for (let top = 0; top <= upper.count; top += 1) {
    const gapEnd = top < upper.count ? upper.start[top] : Infinity;
    while (next < lower.count && lower.start[next] < gapEnd) {
      const start = lower.start[next];
      const end = start + lower.sectors[next];
      const from = start < lba ? lba : start;
      const to = end < gapEnd ? end : gapEnd;
      if (from < to)
        append(out, from, to - from, lower.mapped[next] + from - start, lower.layer[next]);
      if (end > gapEnd) break;
      next += 1;
    }
    if (top === upper.count) break;
    append(out, gapEnd, upper.sectors[top], upper.mapped[top], upper.layer[top]);
    lba = gapEnd + upper.sectors[top];
    while (next < lower.count && lower.start[next] + lower.sectors[next] <= lba) next += 1;
  }
  return out;
}

function allocate(capacity: number): Segments {
  return {
    count: 0,
    start: new Float64Array(capacity),
    sectors: new Uint32Array(capacity),
    mapped: new Float64Array(capacity),
    layer: new Uint16Array(capacity),
  };
}

/** Adds a segment behind the last, or to it where both read as one. Zeros have no mapping. */
function append(
  out: Segments,
  start: number,
  sectors: number,
  mapped: number,
  layer: number,
): void {
  const last = out.count - 1;
  if (last >= 0 && out.layer[last] === layer && out.start[last] + out.sectors[last] === start) {
    const isContiguous = layer === ZERO_LAYER || out.mapped[last] + out.sectors[last] === mapped;
    if (isContiguous && out.sectors[last] + sectors < JOINED_SECTORS_MAX) {
      out.sectors[last] += sectors;
      return;
    }
  }
  const at = out.count;
  out.start[at] = start;
  out.sectors[at] = sectors;
  out.mapped[at] = layer === ZERO_LAYER ? 0 : mapped;
  out.layer[at] = layer;
  out.count = at + 1;
}
