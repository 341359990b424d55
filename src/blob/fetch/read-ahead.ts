import { fetchLimits, GRANULE_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';

/** Shares of read-ahead bytes that were used, above which the window doubles, below which it halves. */
const GROW_ABOVE = 1 / 2;
const SHRINK_BELOW = 1 / 8;
/** Judged once this many windows were read ahead. */
const WINDOWS_PER_JUDGEMENT = 4;

/**
 * How much around a missed read to fetch along with it, for a blob that no plan covers. A miss
 * fetches the aligned window it lies in (as a cache with fixed units would, but those who wait are
 * released as their own bytes arrive); reading on where the last fetch ended opens the window
 * forward; bytes that nobody touches close it.
 */
export class ReadAhead {
  #windowBytes: number = fetchLimits.readAheadBytesStart;
  #lastEnd = -1;
  #issuedBytes = 0;
  #usedBytes = 0;

  get windowBytes(): number {
    return this.#windowBytes;
  }

  /**
   * The range worth having when [start, end) must be fetched; it contains that range. More than
   * `linkBytes`, what the link brings in about two round trips, is not worth it: asking again
   * would cost less than bytes that are only likely to be needed.
   */
  around(start: number, end: number, linkBytes: number): ByteRange {
    const { readAheadBytesMin, readAheadBytesMax } = fetchLimits;
    const worthBytes = Math.min(Math.max(linkBytes, readAheadBytesMin), readAheadBytesMax);
    const windowMax = 2 ** Math.floor(Math.log2(worthBytes));
    this.#windowBytes = Math.min(this.#windowBytes, windowMax);
    const isSequential =
      this.#lastEnd >= 0 && start >= this.#lastEnd && start - this.#lastEnd < this.#windowBytes / 4;
    const range = isSequential ? this.#onward(start, end) : this.#aligned(start, end);
    this.#lastEnd = range.offset + range.length;
    return range;
  }

  onIssued(bytes: number): void {
    this.#issuedBytes += bytes;
  }

  /** A guest asked for bytes that were read ahead. */
  onUsed(bytes: number): void {
    this.#usedBytes += bytes;
  }

  #onward(start: number, end: number): ByteRange {
    this.#resize(2);
    return { offset: start, length: end + this.#windowBytes - start };
  }

  #aligned(start: number, end: number): ByteRange {
    this.#windowBytes = Math.min(this.#windowBytes, fetchLimits.readAheadBytesStart);
    this.#judge();
    const window = this.#windowBytes;
    const offset = start - (start % window);
    return { offset, length: Math.ceil(end / window) * window - offset };
  }

  #judge(): void {
    if (this.#issuedBytes < WINDOWS_PER_JUDGEMENT * this.#windowBytes) return;
    const share = this.#usedBytes / this.#issuedBytes;
    if (share > GROW_ABOVE && this.#windowBytes < fetchLimits.readAheadBytesStart) this.#resize(2);
    if (share < SHRINK_BELOW) this.#resize(1 / 2);
    this.#issuedBytes /= 2;
    this.#usedBytes /= 2;
  }

  #resize(factor: number): void {
    const { readAheadBytesMin, readAheadBytesMax } = fetchLimits;
    const wanted = Math.floor((this.#windowBytes * factor) / GRANULE_BYTES) * GRANULE_BYTES;
    this.#windowBytes = Math.min(Math.max(wanted, readAheadBytesMin), readAheadBytesMax);
  }
}
