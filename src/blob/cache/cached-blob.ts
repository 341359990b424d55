import { alignToGranules, rangeEnd, type ByteRange } from '../../base/range.ts';
import { GRANULE_BYTES } from '../../base/limits.ts';
import type { BlobMap } from '../blob.ts';
import type { BlobStorage } from './blob-storage.ts';
import type { CacheEntry } from './cache-entry.ts';
import { GranuleWriter } from './granule-writer.ts';

/** What a handle asks of the cache it came from. */
export interface CacheKeeper {
  store(entry: CacheEntry, bytes: Uint8Array, offset: number): void;
  drop(entry: CacheEntry, first: number, end: number): void;
  wallMs(): number;
  leave(entry: CacheEntry): Promise<void>;
}

/**
 * One opener's hold on a cached blob. All holds on one digest share map and presence; the map
 * lives until the last of them is closed.
 */
export class CachedBlob {
  readonly digest: string;
  readonly sizeBytes: number;
  readonly map: BlobMap;
  /** The mapping as bytes; what lies in an absent granule is undefined. */
  readonly bytes: Uint8Array;
  readonly #entry: CacheEntry;
  readonly #keeper: CacheKeeper;
  #pinned: ByteRange[] = [];
  #isClosed = false;

  constructor(entry: CacheEntry, storage: BlobStorage, keeper: CacheKeeper) {
    this.digest = entry.digest;
    this.sizeBytes = entry.sizeBytes;
    this.#entry = entry;
    this.#keeper = keeper;
    this.bytes = storage.map.bytes;
    this.map = {
      address: storage.map.address,
      sizeBytes: entry.sizeBytes,
      presence: entry.presence.buffer,
    };
  }

  /** The same object for every hold on the same blob. */
  get identity(): object {
    return this.#entry;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  has(offset: number, length: number): boolean {
    const first = Math.floor(offset / GRANULE_BYTES);
    const end = Math.ceil((offset + length) / GRANULE_BYTES);
    return length === 0 || this.#entry.presence.allSet(first, end);
  }

  /** The absent parts of a range, widened to granules, in order. */
  missing(offset: number, length: number): ByteRange[] {
    const { presence } = this.#entry;
    const { first, end } = granulesOf({ offset, length }, this.sizeBytes);
    const ranges: ByteRange[] = [];
    for (let start = presence.nextClear(first, end); start < end;) {
      const stop = presence.nextSet(start, end);
      ranges.push({ offset: start * GRANULE_BYTES, length: this.#entry.bytesOf(start, stop) });
      start = presence.nextClear(stop, end);
    }
    return ranges;
  }

  /**
   * Takes a granule-aligned range's bytes in order. `onGranules(upTo)` tells that everything of
   * the range below `upTo` is present. Writes after `close` are lost.
   */
  writer(range: ByteRange, onGranules: (upTo: number) => void): GranuleWriter {
    const store = (bytes: Uint8Array, offset: number): void => {
      if (!this.#isClosed) this.#keeper.store(this.#entry, bytes, offset);
    };
    return new GranuleWriter({ name: this.digest, range, store, onGranules });
  }

  /** Forgets a range's granules, so that they are fetched again. */
  drop(range: ByteRange): void {
    const { first, end } = granulesOf(range, this.sizeBytes);
    this.#keeper.drop(this.#entry, first, end);
  }

  /** Tells eviction that a range is in use. */
  stampUsed(offset: number, length: number): void {
    const { first, end } = granulesOf({ offset, length }, this.sizeBytes);
    this.#entry.stampUsed(first, end, this.#keeper.wallMs());
  }

  /** Keeps ranges from being evicted, instead of those this hold pinned before. */
  pin(ranges: readonly ByteRange[]): void {
    this.unpin();
    this.#pinned = ranges.map((range) => ({ ...range }));
    this.#changePins(1);
  }

  unpin(): void {
    this.#changePins(-1);
    this.#pinned = [];
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.unpin();
    await this.#keeper.leave(this.#entry);
  }

  #changePins(by: 1 | -1): void {
    for (const range of this.#pinned) {
      const { first, end } = granulesOf(range, this.sizeBytes);
      this.#entry.changePins(first, end, by);
    }
  }
}

/** The granules that a byte range touches. */
function granulesOf(range: ByteRange, sizeBytes: number): { first: number; end: number } {
  const aligned = alignToGranules(range, sizeBytes);
  if (aligned.length <= 0) return { first: 0, end: 0 };
  return {
    first: aligned.offset / GRANULE_BYTES,
    end: Math.ceil(rangeEnd(aligned) / GRANULE_BYTES),
  };
}
