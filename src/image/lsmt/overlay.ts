import type { LsmtEntryColumns } from './index-entries.ts';

/**
 * Sorted segments that do not overlap, as columns of which only the first `count` rows count. None
 * is longer than the index entry it was cut from.
 */
export interface Segments {
  count: number;
  readonly start: Float64Array;
  readonly sectors: Uint16Array;
  /** Sector of the layer's file; of no meaning where zeroed. */
  readonly mapped: Float64Array;
  /** 1 where the segment reads as zeros. */
  readonly zeroed: Uint8Array;
  /** Number of the layer the segment came from; 0 is the bottom. */
  readonly layer: Uint16Array;
}

/**
 * Merges layers, bottom first: for every sector the topmost layer that has it wins, zeroed entries
 * included. Segments stay apart as the original's merge leaves them (index.cpp:847-909). What lies
 * at or beyond `sectorEnd` is dropped.
 */
export function overlayLayers(layers: readonly LsmtEntryColumns[], sectorEnd = Infinity): Segments {
  return overlayAll(layers.map((layer, number) => segmentsOfEntries(layer, number, sectorEnd)));
}

/** Lays each of `levels` over those before it. */
export function overlayAll(levels: readonly Segments[]): Segments {
  let remaining = levels;
  // Overlaying is associative: joining neighbours looks at a segment log2(levels) times only.
  while (remaining.length > 1) {
    const next: Segments[] = [];
    for (let i = 0; i < remaining.length; i += 2) {
      const isPair = i + 1 < remaining.length;
      next.push(isPair ? overlay(remaining[i], remaining[i + 1]) : remaining[i]);
    }
    remaining = next;
  }
  return remaining.length === 1 ? remaining[0] : allocateSegments(0);
}

/** Empty columns with room for `capacity` segments. */
export function allocateSegments(capacity: number): Segments {
  return {
    count: 0,
    start: new Float64Array(capacity),
    sectors: new Uint16Array(capacity),
    mapped: new Float64Array(capacity),
    zeroed: new Uint8Array(capacity),
    layer: new Uint16Array(capacity),
  };
}

function segmentsOfEntries(entries: LsmtEntryColumns, layer: number, sectorEnd: number): Segments {
  let count = entries.count;
  while (count > 0 && entries.start[count - 1] >= sectorEnd) count -= 1;
  const segments = {
    count,
    start: entries.start,
    sectors: entries.sectors,
    mapped: entries.mapped,
    zeroed: entries.zeroed,
    layer: new Uint16Array(count).fill(layer),
  };
  const last = count - 1;
  if (count > 0 && entries.start[last] + entries.sectors[last] > sectorEnd) {
    segments.sectors = entries.sectors.slice(0, count);
    segments.sectors[last] = sectorEnd - entries.start[last];
  }
  return segments;
}

/**
 * Lays `upper` over `lower`:
 *
 *   upper      [---A---)          [--B--)
 *   lower   [-1-)  [------2----------)[--3--)
 *   out     [1)[---A---)[---2-----)[--B--)[3)
 */
function overlay(lower: Segments, upper: Segments): Segments {
  // Every upper segment splits at most one lower segment in two.
  const out = allocateSegments(lower.count + 2 * upper.count);
  let next = 0;
  let lba = 0;
  for (let top = 0; top <= upper.count; top += 1) {
    const gapEnd = top < upper.count ? upper.start[top] : Infinity;
    while (next < lower.count && lower.start[next] < gapEnd) {
      const end = lower.start[next] + lower.sectors[next];
      copyPart(lower, next, out, lba, gapEnd);
      if (end > gapEnd) break;
      next += 1;
    }
    if (top === upper.count) break;
    lba = gapEnd + upper.sectors[top];
    copyPart(upper, top, out, gapEnd, lba);
    while (next < lower.count && lower.start[next] + lower.sectors[next] <= lba) next += 1;
  }
  return out;
}

/** Appends the part of segment `at` that lies in the sectors [from, to), if any. */
function copyPart(source: Segments, at: number, out: Segments, from: number, to: number): void {
  const start = source.start[at];
  const end = start + source.sectors[at];
  const partStart = start < from ? from : start;
  const partEnd = end > to ? to : end;
  if (partStart >= partEnd) return;
  const row = out.count;
  out.start[row] = partStart;
  out.sectors[row] = partEnd - partStart;
  out.mapped[row] = source.mapped[at] + partStart - start;
  out.zeroed[row] = source.zeroed[at];
  out.layer[row] = source.layer[at];
  out.count = row + 1;
}
