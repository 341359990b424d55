import { GRANULE_BYTES } from '../base/limits.ts';
import { alignToGranules, rangeEnd } from '../base/range.ts';
import type { TouchedBytes } from './blob.ts';
import { GranuleBits, granuleCountOf } from './cache/granule-bits.ts';

export type TouchClass = keyof TouchedBytes;

/** Which granules a guest has touched, so that each counts once. */
export class TouchLedger {
  readonly #sizeBytes: number;
  readonly #touched: GranuleBits;

  constructor(sizeBytes: number) {
    this.#sizeBytes = sizeBytes;
    this.#touched = new GranuleBits(granuleCountOf(sizeBytes));
  }

  /** Counts the range's first touches, each as `classify` says of its granule. */
  touch(offset: number, length: number, classify: (granule: number) => TouchClass): TouchedBytes {
    const counts: TouchedBytes = { cached: 0, prefetched: 0, late: 0, demand: 0 };
    const aligned = alignToGranules({ offset, length }, this.#sizeBytes);
    const end = Math.ceil(rangeEnd(aligned) / GRANULE_BYTES);
    const first = this.#touched.nextClear(aligned.offset / GRANULE_BYTES, end);
    for (let granule = first; granule < end; granule = this.#touched.nextClear(granule + 1, end)) {
      counts[classify(granule)] += this.bytesOf(granule);
      this.#touched.setRange(granule, granule + 1);
    }
    return counts;
  }

  /** Of a range, the bytes that were touched, in whole granules. */
  touchedIn(offset: number, length: number): number {
    const aligned = alignToGranules({ offset, length }, this.#sizeBytes);
    const end = Math.ceil(rangeEnd(aligned) / GRANULE_BYTES);
    const granules = this.#touched.countRange(aligned.offset / GRANULE_BYTES, end);
    const isLastTouched = granules > 0 && this.isTouched(end - 1);
    const missingBytes = isLastTouched ? GRANULE_BYTES - this.bytesOf(end - 1) : 0;
    return granules * GRANULE_BYTES - missingBytes;
  }

  isTouched(granule: number): boolean {
    return this.#touched.test(granule);
  }

  /** The last granule may be short. */
  bytesOf(granule: number): number {
    return Math.min(GRANULE_BYTES, this.#sizeBytes - granule * GRANULE_BYTES);
  }
}
