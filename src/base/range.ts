import { GRANULE_BYTES } from './limits.ts';

/** The half-open byte range [offset, offset + length). The project's only range type. */
export interface ByteRange {
  offset: number;
  length: number;
}

export function rangeEnd(range: ByteRange): number {
  return range.offset + range.length;
}

/** Widens a range to whole granules, cut at `sizeBytes`. */
export function alignToGranules(range: ByteRange, sizeBytes: number): ByteRange {
  const offset = range.offset - (range.offset % GRANULE_BYTES);
  const end = Math.min(Math.ceil(rangeEnd(range) / GRANULE_BYTES) * GRANULE_BYTES, sizeBytes);
  return { offset, length: end - offset };
}

/** Sorts by offset and joins ranges that overlap or lie at most `gapMax` bytes apart. */
export function mergeRanges(ranges: readonly ByteRange[], gapMax = 0): ByteRange[] {
  const sorted = [...ranges].sort((a, b) => a.offset - b.offset);
  const merged: ByteRange[] = [];
  for (const range of sorted) {
    const last = merged.at(-1);
    if (last !== undefined && range.offset <= rangeEnd(last) + gapMax) {
      last.length = Math.max(rangeEnd(last), rangeEnd(range)) - last.offset;
    } else {
      merged.push({ ...range });
    }
  }
  return merged;
}
