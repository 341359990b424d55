import { cacheLimits, GRANULE_BYTES } from '../../base/limits.ts';
import { forEachRun, GranuleBits, granuleCountOf } from './granule-bits.ts';
import type { BlobStorage } from './blob-storage.ts';

const EXTENT_GRANULES = cacheLimits.extentBytes / GRANULE_BYTES;

/**
 * What the cache knows of one blob, whether anyone has it open or not.
 *
 *   presence   granules that read right through the map        (shared with all threads)
 *   onDisk     granules that take room in the data file
 *   inMemory   granules that stand in memory because the disk refused them
 *   persisted  granules that the presence file claims
 *
 * inMemory is a part of presence; every other present granule is on disk. Room on disk is given
 * back only where neither presence nor persisted claims it.
 */
export class CacheEntry {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly granuleCount: number;
  readonly presence: GranuleBits;
  readonly onDisk: GranuleBits;
  readonly inMemory: GranuleBits;
  persisted: Uint32Array;
  /** Present while somebody has the blob open. */
  storage: BlobStorage | null = null;
  users = 0;
  /** The presence file does not say what it could. */
  isDirty = false;
  /** The presence file says that the blob was closed in order. */
  isRecordClean = true;
  isReclaiming = false;
  readonly #lastUsedMs: Float64Array;
  readonly #pins: Uint32Array;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(digest: string, sizeBytes: number) {
    this.digest = digest;
    this.sizeBytes = sizeBytes;
    this.granuleCount = granuleCountOf(sizeBytes);
    this.presence = new GranuleBits(this.granuleCount);
    this.onDisk = new GranuleBits(this.granuleCount);
    this.inMemory = new GranuleBits(this.granuleCount);
    this.persisted = new Uint32Array(this.presence.words.length);
    const extentCount = Math.ceil(this.granuleCount / EXTENT_GRANULES);
    this.#lastUsedMs = new Float64Array(extentCount);
    this.#pins = new Uint32Array(extentCount);
  }

  get lastUsedMs(): number {
    return this.#lastUsedMs.reduce((latest, stamp) => Math.max(latest, stamp), 0);
  }

  /** Bytes of a run of granules; the blob's last granule may be short. */
  bytesOf(first: number, end: number): number {
    return Math.min(end * GRANULE_BYTES, this.sizeBytes) - first * GRANULE_BYTES;
  }

  /** Runs one task on the entry's files at a time. */
  exclusively<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(task);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  stampUsed(first: number, end: number, wallMs: number): void {
    if (first >= end) return;
    const last = Math.floor((end - 1) / EXTENT_GRANULES);
    for (let extent = Math.floor(first / EXTENT_GRANULES); extent <= last; extent += 1) {
      this.#lastUsedMs[extent] = wallMs;
    }
  }

  /** Keeps (or, with -1, no longer keeps) the extents of a run from being evicted. */
  changePins(first: number, end: number, by: 1 | -1): void {
    if (first >= end) return;
    const last = Math.floor((end - 1) / EXTENT_GRANULES);
    for (let extent = Math.floor(first / EXTENT_GRANULES); extent <= last; extent += 1) {
      this.#pins[extent] += by;
    }
  }

  /** The extents that eviction may take, with what that would free. */
  *evictableExtents(): Generator<EvictableExtent> {
    if (this.presence.count === this.inMemory.count) return;
    for (let extent = 0; extent < this.#pins.length; extent += 1) {
      if (this.#pins[extent] > 0) continue;
      const first = extent * EXTENT_GRANULES;
      const end = Math.min(first + EXTENT_GRANULES, this.granuleCount);
      const granules = this.presence.countRange(first, end) - this.inMemory.countRange(first, end);
      if (granules === 0) continue;
      yield { entry: this, first, end, granules, lastUsedMs: this.#lastUsedMs[extent] };
    }
  }

  /** Forgets the run's granules that are on disk; their room is given back later. */
  forgetOnDisk(first: number, end: number): number {
    let forgotten = 0;
    forEachRun(this.presence, first, end, (runFirst, runEnd) => {
      for (let index = runFirst; index < runEnd; index += 1) {
        if (!this.inMemory.test(index)) forgotten += this.presence.clearRange(index, index + 1);
      }
    });
    if (forgotten > 0) this.isDirty = true;
    return forgotten;
  }

  /** A copy of the bits that the presence file may claim once the data is durable. */
  claimableWords(): Uint32Array {
    return this.presence.words.map(
      (word, index) => word & this.onDisk.words[index] & ~this.inMemory.words[index],
    );
  }

  /** Calls `visit` for runs that take room on disk and that nothing claims. */
  forEachUnclaimedRun(visit: (first: number, end: number) => void): void {
    const claimed = this.claimableWords();
    const unclaimed = new GranuleBits(this.granuleCount);
    unclaimed.load(
      new Uint32Array(
        claimed.map((word, index) => this.onDisk.words[index] & ~word & ~this.persisted[index]),
      ),
    );
    forEachRun(unclaimed, 0, this.granuleCount, visit);
  }
}

export interface EvictableExtent {
  entry: CacheEntry;
  /** In granules. */
  first: number;
  end: number;
  granules: number;
  lastUsedMs: number;
}
