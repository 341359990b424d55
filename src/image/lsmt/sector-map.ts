import { upperLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { UpperMap } from './upper-map.ts';
import type { UpperState } from './upper-state.ts';

/*
 * A writable layer's live index, in shared memory, sector by sector:
 *
 *   regions   one word a 64 KiB region:  0 nothing | 1 all zeroed | n >= 2 see leaf n - 2
 *                                                                          |
 *   leaves    128 words each:  0 not in the layer | 0xffffffff zeroed | else data:
 *             the sector of the data file; in a sparse layer, whose place follows, just 1
 *
 * Readers take no lock. A word is stored after what it leads to is complete - data in the file, a
 * leaf filled - so they see the old or the new. A region that has got a leaf keeps it for good: a
 * reader may hold the leaf's number at any time.
 */
export const REGION_SECTORS = 128;
const REGION_NOTHING = 0;
const REGION_ZEROED = 1;
const LEAF_FIRST = 2;
const ABSENT = 0;
const DATA_IN_PLACE = 1;
const ZEROED = 0xffff_ffff;
const LEAF_BYTES = REGION_SECTORS * 4;
const GROW_LEAVES = 8192;

/** What a run of sectors is: lower layers show through, zeros, or data of this layer. */
export const runKinds = { absent: 0, zeroed: 1, data: 2 } as const;
export type RunKind = (typeof runKinds)[keyof typeof runKinds];

/** One thread's view of a layer's index. */
export class SectorMap {
  /** What `find` found. */
  kind: RunKind = runKinds.absent;
  /** Where a run of data begins in an append-only layer's file, in sectors. */
  sector = 0;
  readonly #regions: Int32Array<SharedArrayBuffer>;
  readonly #leaves: SharedArrayBuffer;
  readonly #state: UpperState;
  readonly #isInPlace: boolean;
  /** As many leaves as there were at the last look: of a fixed length, as those are read faster. */
  #words: Uint32Array<SharedArrayBuffer>;

  constructor({ kind, regions, leaves }: UpperMap, state: UpperState) {
    this.#regions = new Int32Array(regions);
    this.#leaves = leaves;
    this.#state = state;
    this.#isInPlace = kind === 'sparse';
    this.#words = new Uint32Array(leaves, 0, leaves.byteLength / 4);
  }

  /** Empty buffers for a disk of this size. They take up memory as they are filled. */
  static allocate(virtualSizeBytes: number): Pick<UpperMap, 'regions' | 'leaves'> {
    const regions = Math.ceil(virtualSizeBytes / SECTOR_BYTES / REGION_SECTORS);
    const leavesMax = Math.min(regions, upperLimits.leavesMax);
    return {
      regions: new SharedArrayBuffer(regions * 4),
      leaves: new SharedArrayBuffer(0, { maxByteLength: leavesMax * LEAF_BYTES }),
    };
  }

  /**
   * How many sectors from `lba` on, at most `sectorsMax`, are alike; `kind` and `sector` say what
   * they are. At least 1. Allocates nothing.
   */
  find(lba: number, sectorsMax: number): number {
    let region = Math.floor(lba / REGION_SECTORS);
    let within = lba - region * REGION_SECTORS;
    let expected = this.#at(region, within);
    const isData = expected !== ABSENT && expected !== ZEROED;
    this.kind = isData ? runKinds.data : expected === ZEROED ? runKinds.zeroed : runKinds.absent;
    this.sector = expected;
    const step = isData && !this.#isInPlace ? 1 : 0;
    let count = 0;
    while (count < sectorsMax) {
      const take = Math.min(REGION_SECTORS - within, sectorsMax - count);
      const entry = Atomics.load(this.#regions, region);
      if (entry >= LEAF_FIRST) {
        const base = (entry - LEAF_FIRST) * REGION_SECTORS + within;
        const words = this.#wordsTo(base + take);
        let same = 0;
        for (; same < take && words[base + same] === expected; same += 1) expected += step;
        count += same;
        if (same < take) break;
      } else {
        if ((entry === REGION_ZEROED ? ZEROED : ABSENT) !== expected) break;
        count += take;
      }
      region += 1;
      within = 0;
    }
    // Another thread may have changed the first sector between the two looks at it.
    return Math.max(count, 1);
  }

  /**
   * With the lock held: makes sure that setting the sectors cannot fail half-way. False when the
   * index is as large as it may get.
   */
  prepare(lba: number, sectors: number, isZeroing: boolean): boolean {
    const first = Math.floor(lba / REGION_SECTORS);
    const last = Math.floor((lba + sectors - 1) / REGION_SECTORS);
    for (let region = first; region <= last; region += 1) {
      if (this.#regions[region] >= LEAF_FIRST) continue;
      const start = region * REGION_SECTORS;
      const isWhole = lba <= start && lba + sectors >= start + REGION_SECTORS;
      if (isWhole && isZeroing) continue;
      if (!this.#addLeaf(region)) return false;
    }
    return true;
  }

  /** With the lock held, after `prepare`: the data is in the file, from `sector` on. */
  setData(lba: number, sectors: number, sector: number): void {
    const step = this.#isInPlace ? 0 : 1;
    let value = this.#isInPlace ? DATA_IN_PLACE : sector;
    for (let done = 0; done < sectors;) {
      const region = Math.floor((lba + done) / REGION_SECTORS);
      const within = lba + done - region * REGION_SECTORS;
      const take = Math.min(REGION_SECTORS - within, sectors - done);
      const base = (this.#regions[region] - LEAF_FIRST) * REGION_SECTORS + within;
      const words = this.#wordsTo(base + take);
      for (let i = 0; i < take; i += 1, value += step) Atomics.store(words, base + i, value);
      done += take;
    }
  }

  /** With the lock held, after `prepare`. */
  setZeroed(lba: number, sectors: number): void {
    for (let done = 0; done < sectors;) {
      const region = Math.floor((lba + done) / REGION_SECTORS);
      const within = lba + done - region * REGION_SECTORS;
      const take = Math.min(REGION_SECTORS - within, sectors - done);
      const entry = this.#regions[region];
      if (entry >= LEAF_FIRST) {
        const base = (entry - LEAF_FIRST) * REGION_SECTORS + within;
        const words = this.#wordsTo(base + take);
        for (let i = 0; i < take; i += 1) Atomics.store(words, base + i, ZEROED);
      } else {
        Atomics.store(this.#regions, region, REGION_ZEROED);
      }
      done += take;
    }
  }

  /** Gives a region a leaf that says the same as the region did. */
  #addLeaf(region: number): boolean {
    const leaf = this.#state.leaves;
    const end = (leaf + 1) * LEAF_BYTES;
    if (end > this.#leaves.byteLength) {
      const { maxByteLength } = this.#leaves;
      if (end > maxByteLength) return false;
      const wanted = this.#leaves.byteLength + GROW_LEAVES * LEAF_BYTES;
      this.#leaves.grow(Math.min(wanted, maxByteLength));
    }
    const words = this.#wordsTo(end / 4);
    if (this.#regions[region] === REGION_ZEROED)
      words.fill(ZEROED, end / 4 - REGION_SECTORS, end / 4);
    this.#state.leaves = leaf + 1;
    Atomics.store(this.#regions, region, LEAF_FIRST + leaf);
    return true;
  }

  #at(region: number, within: number): number {
    const entry = Atomics.load(this.#regions, region);
    if (entry === REGION_NOTHING) return ABSENT;
    if (entry === REGION_ZEROED) return ZEROED;
    const at = (entry - LEAF_FIRST) * REGION_SECTORS + within;
    return this.#wordsTo(at + 1)[at];
  }

  /** All leaves, of which another thread may have added some. */
  #wordsTo(end: number): Uint32Array<SharedArrayBuffer> {
    if (end > this.#words.length) {
      this.#words = new Uint32Array(this.#leaves, 0, this.#leaves.byteLength / 4);
    }
    return this.#words;
  }
}
