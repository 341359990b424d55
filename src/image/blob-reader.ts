import type { Blob } from '../blob/blob.ts';
import { ReplaybdError } from '../base/errors.ts';
import { layerBlobLimits } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';

/**
 * Reads a blob's own bytes (not the layer's), and remembers which: when they turn out to be
 * damaged, `dropAll` has them fetched again; when they are good, `ranges` says what opening needed.
 */
export class BlobReader {
  readonly blob: Blob;
  readonly ranges: ByteRange[] = [];

  constructor(blob: Blob) {
    this.blob = blob;
  }

  /** A copy of the blob's bytes [offset, offset + length), which must lie inside it. */
  async read(offset: number, length: number): Promise<Uint8Array> {
    const copy = new Uint8Array(length);
    if (length === 0) return copy;
    await this.visit(offset, length, (bytes) => {
      copy.set(bytes);
    });
    return copy;
  }

  /**
   * Calls `use` with the blob's bytes, without copying them; again when they were evicted
   * meanwhile, so only what the last call made of them may be kept. Errors: ERR_BLOB_EVICTED, and
   * what `ensure` throws.
   */
  async visit(offset: number, length: number, use: (bytes: Uint8Array) => void): Promise<void> {
    const { blob } = this;
    this.ranges.push({ offset, length });
    for (let attempt = 0; attempt < layerBlobLimits.evictedAttemptsMax; attempt += 1) {
      await blob.ensure(offset, length);
      if (!blob.has(offset, length)) continue;
      use(blob.bytes.subarray(offset, offset + length));
      if (blob.has(offset, length)) return;
    }
    throw new ReplaybdError(
      'ERR_BLOB_EVICTED',
      `${blob.name}: bytes ${offset} to ${offset + length} are evicted faster than they can be ` +
        'read. Give the cache a larger quota.',
    );
  }

  /** Forgets everything read so far; false when fetching it again cannot help. */
  dropAll(): boolean {
    const dropped = this.ranges.map(({ offset, length }) => this.blob.drop(offset, length));
    this.ranges.length = 0;
    return dropped.includes(true);
  }
}
