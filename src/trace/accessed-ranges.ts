import { SECTOR_BYTES } from '../base/limits.ts';
import type { TraceRecords } from './trace.ts';

/** The bytes of a disk that a trace's records read, to ask whether something is among them. */
export class AccessedRanges {
  /** Disjoint, rising. */
  readonly #start: Float64Array;
  readonly #end: Float64Array;

  constructor({ count, lba, sectors }: Pick<TraceRecords, 'count' | 'lba' | 'sectors'>) {
    const order = new Uint32Array(count).map((_, i) => i);
    order.sort((a, b) => lba[a] - lba[b]);
    const start = new Float64Array(count);
    const end = new Float64Array(count);
    let ranges = 0;
    for (const i of order) {
      const from = lba[i] * SECTOR_BYTES;
      const to = from + sectors[i] * SECTOR_BYTES;
      if (ranges > 0 && from <= end[ranges - 1]) {
        end[ranges - 1] = Math.max(end[ranges - 1], to);
        continue;
      }
      start[ranges] = from;
      end[ranges] = to;
      ranges += 1;
    }
    this.#start = start.subarray(0, ranges);
    this.#end = end.subarray(0, ranges);
  }

  /** Whether any byte of [offset, offset + length) was read. */
  overlaps(offset: number, length: number): boolean {
    let [low, high] = [0, this.#end.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#end[middle] > offset) high = middle;
      else low = middle + 1;
    }
    return low < this.#start.length && this.#start[low] < offset + length;
  }
}
