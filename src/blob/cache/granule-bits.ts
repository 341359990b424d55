import assert from 'node:assert/strict';
import { GRANULE_BYTES } from '../../base/limits.ts';

const ALL_ONES = 0xffff_ffff;

/**
 * One bit a granule, bit `i & 31` of word `i >>> 5`. Ranges are half-open, in granules. Only the
 * main thread changes bits; atomics publish them to the threads that look at the same buffer.
 */
export class GranuleBits {
  readonly size: number;
  readonly buffer: SharedArrayBuffer;
  readonly words: Uint32Array<SharedArrayBuffer>;
  #count = 0;

  constructor(size: number) {
    this.size = size;
    this.buffer = new SharedArrayBuffer(Math.max(1, Math.ceil(size / 32)) * 4);
    this.words = new Uint32Array(this.buffer);
  }

  /** How many bits are set. */
  get count(): number {
    return this.#count;
  }

  test(index: number): boolean {
    return ((this.words[index >>> 5] >>> (index & 31)) & 1) === 1;
  }

  /** How many of the range's bits this call changed. */
  setRange(first: number, end: number): number {
    return this.#change(first, end, true);
  }

  clearRange(first: number, end: number): number {
    return this.#change(first, end, false);
  }

  allSet(first: number, end: number): boolean {
    return this.nextClear(first, end) === end;
  }

  /** First set bit in the range, or `end`. */
  nextSet(first: number, end: number): number {
    return this.#next(first, end, 0);
  }

  /** First clear bit in the range, or `end`. */
  nextClear(first: number, end: number): number {
    return this.#next(first, end, ALL_ONES);
  }

  countRange(first: number, end: number): number {
    let count = 0;
    for (let index = first; index < end;) {
      const mask = maskWithin(index, end);
      count += countOnes(this.words[index >>> 5] & mask);
      index = (index | 31) + 1;
    }
    return count;
  }

  /** Replaces all bits. Bits past the end must be clear. */
  load(words: Uint32Array): void {
    assert.equal(words.length, this.words.length);
    this.words.set(words);
    this.#count = this.countRange(0, this.size);
  }

  #change(first: number, end: number, value: boolean): number {
    assert(first >= 0 && end <= this.size);
    let changed = 0;
    for (let index = first; index < end;) {
      const word = index >>> 5;
      const mask = maskWithin(index, end);
      const before = value
        ? Atomics.or(this.words, word, mask)
        : Atomics.and(this.words, word, ~mask);
      changed += countOnes((value ? ~before : before) & mask);
      index = (index | 31) + 1;
    }
    this.#count += value ? changed : -changed;
    return changed;
  }

  /** `flip` is 0 to find a set bit, all ones to find a clear one. */
  #next(first: number, end: number, flip: number): number {
    for (let index = first; index < end;) {
      const found = (this.words[index >>> 5] ^ flip) & maskWithin(index, end);
      if (found !== 0) return (index & ~31) + (31 - Math.clz32(found & -found));
      index = (index | 31) + 1;
    }
    return end;
  }
}

/** The bits of `index`'s word that lie in [index, end). */
function maskWithin(index: number, end: number): number {
  const from = ALL_ONES << (index & 31);
  const wordEnd = (index | 31) + 1;
  return end >= wordEnd ? from : from & ~(ALL_ONES << (end & 31));
}

function countOnes(word: number): number {
  let rest = word - ((word >>> 1) & 0x5555_5555);
  rest = (rest & 0x3333_3333) + ((rest >>> 2) & 0x3333_3333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

export function granuleCountOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / GRANULE_BYTES);
}

/** Calls `visit` for every maximal run of set bits in the range. */
export function forEachRun(
  bits: GranuleBits,
  first: number,
  end: number,
  visit: (runFirst: number, runEnd: number) => void,
): void {
  for (let start = bits.nextSet(first, end); start < end;) {
    const stop = bits.nextClear(start, end);
    visit(start, stop);
    start = bits.nextSet(stop, end);
  }
}
