import koffi from 'koffi';
import type { Blob, BlobMap, EnsureOptions, TouchedBytes } from '../../src/blob/blob.ts';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { rangeEnd, type ByteRange } from '../../src/base/range.ts';

/** Whether a blob is local as a whole, or fetched granule by granule from its origin. */
export type MemoryBlobKind = 'local' | 'lazy';

/**
 * A blob in memory. A lazy one begins empty: `ensure` copies granules from the origin, `drop`
 * zeroes them, as a cache would. `origin` may be altered between the two.
 */
export class MemoryBlob implements Blob {
  readonly name: string;
  readonly digest = null;
  readonly sizeBytes: number;
  readonly map: BlobMap;
  readonly bytes: Uint8Array;
  readonly origin: Uint8Array;
  /** Ranges that `ensure` was asked for and had to fetch, in order. */
  readonly fetched: ByteRange[] = [];
  /** Called when a fetch begins: a test's chance to alter the origin. */
  onFetch: (range: ByteRange) => void = () => undefined;
  readonly #presence: Int32Array | null;

  constructor(origin: Uint8Array, kind: MemoryBlobKind = 'local', name = 'memory-blob') {
    this.name = name;
    this.sizeBytes = origin.length;
    this.origin = origin;
    // Even an empty blob needs an address.
    this.bytes = new Uint8Array(
      new SharedArrayBuffer(Math.max(origin.length, 1)),
      0,
      origin.length,
    );
    const words = Math.ceil(origin.length / GRANULE_BYTES / 32);
    const presence = kind === 'lazy' ? new SharedArrayBuffer(Math.max(words, 1) * 4) : null;
    this.#presence = presence === null ? null : new Int32Array(presence);
    if (presence === null) this.bytes.set(origin);
    const address = Number(koffi.address(new Uint8Array(this.bytes.buffer)));
    this.map = { address, sizeBytes: origin.length, presence };
  }

  has(offset: number, length: number): boolean {
    const presence = this.#presence;
    if (presence === null) return true;
    return granulesOf(offset, length).every(
      (granule) => ((Atomics.load(presence, granule >>> 5) >>> (granule & 31)) & 1) === 1,
    );
  }

  async ensure(offset: number, length: number, _options?: EnsureOptions): Promise<void> {
    if (this.#presence === null || this.has(offset, length)) return;
    this.fetched.push({ offset, length });
    this.onFetch({ offset, length });
    await Promise.resolve();
    for (const granule of granulesOf(offset, length)) {
      const start = granule * GRANULE_BYTES;
      this.bytes.set(this.origin.subarray(start, start + GRANULE_BYTES), start);
      Atomics.or(this.#presence, granule >>> 5, 1 << (granule & 31));
    }
  }

  drop(offset: number, length: number): boolean {
    if (this.#presence === null) return false;
    for (const granule of granulesOf(offset, length)) {
      Atomics.and(this.#presence, granule >>> 5, ~(1 << (granule & 31)));
      this.bytes.fill(0, granule * GRANULE_BYTES, (granule + 1) * GRANULE_BYTES);
    }
    return true;
  }

  touch(_offset: number, _length: number): TouchedBytes {
    return { cached: 0, prefetched: 0, late: 0, demand: 0 };
  }

  touchedIn(_offset: number, _length: number): number {
    return 0;
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }
}

function granulesOf(offset: number, length: number): number[] {
  const first = Math.floor(offset / GRANULE_BYTES);
  const last = Math.ceil(rangeEnd({ offset, length }) / GRANULE_BYTES);
  return Array.from({ length: Math.max(last - first, 0) }, (_, at) => first + at);
}
