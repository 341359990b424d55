import { sparseBitmapLimits } from './limits.ts';

const PAGE_BITS = 32_768;
const WORD_BITS = 32;

/** Called with each maximal run of bits that a call has newly set. */
export type RunListener = (start: number, count: number) => void;

/** A set of non-negative integers (to 2^53) that costs memory only near its members. */
export class SparseBitmap {
  readonly #pages = new Map<number, Int32Array>();
  readonly #pagesMax: number;
  #lastPage = -1;
  #lastWords: Int32Array = new Int32Array(0);

  constructor(pagesMax: number = sparseBitmapLimits.pagesMax) {
    this.#pagesMax = pagesMax;
  }

  /**
   * Adds [start, start + count) and reports what was new, in rising order. False when the limit
   * on pages stopped it: what it reported until then is in, the rest is not.
   */
  add(start: number, count: number, onNew: RunListener): boolean {
    const end = start + count;
    let runStart = -1;
    let position = start;
    while (position < end) {
      const words = this.#page(Math.floor(position / PAGE_BITS));
      if (words === null) break;
      const bit = position % PAGE_BITS;
      const first = bit % WORD_BITS;
      const width = Math.min(WORD_BITS - first, end - position);
      const mask = width === WORD_BITS ? -1 : ((1 << width) - 1) << first;
      const fresh = mask & ~words[bit >>> 5];
      words[bit >>> 5] |= mask;
      const base = position - first;
      position += width;
      if (fresh === mask) {
        if (runStart < 0) runStart = base + first;
        continue;
      }
      // Of what occurs over and over, whole words are known.
      if (fresh === 0) {
        if (runStart >= 0) onNew(runStart, base + first - runStart);
        runStart = -1;
        continue;
      }
      for (let i = first; i < first + width; i += 1) {
        const isFresh = ((fresh >>> i) & 1) === 1;
        if (isFresh && runStart < 0) runStart = base + i;
        if (!isFresh && runStart >= 0) {
          onNew(runStart, base + i - runStart);
          runStart = -1;
        }
      }
    }
    if (runStart >= 0) onNew(runStart, position - runStart);
    return position === end;
  }

  has(value: number): boolean {
    const words = this.#pages.get(Math.floor(value / PAGE_BITS));
    const bit = value % PAGE_BITS;
    return words !== undefined && ((words[bit >>> 5] >>> (bit & 31)) & 1) === 1;
  }

  #page(page: number): Int32Array | null {
    if (page === this.#lastPage) return this.#lastWords;
    let words = this.#pages.get(page);
    if (words === undefined) {
      if (this.#pages.size >= this.#pagesMax) return null;
      words = new Int32Array(PAGE_BITS / WORD_BITS);
      this.#pages.set(page, words);
    }
    this.#lastPage = page;
    this.#lastWords = words;
    return words;
  }
}
