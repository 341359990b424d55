import type { Blob } from '../blob/blob.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { mergeRanges, type ByteRange } from '../base/range.ts';
import type { ReadFailure } from '../../native/kernels.ts';
import { runKinds } from '../image/lsmt/sector-map.ts';
import type { Stack } from '../image/stack.ts';
import type { MissSource } from '../prefetch/quality.ts';
import type { DeviceExtent } from './block-device.ts';
import type { CachedReader } from './cached-reader.ts';

/** How often a block that fails its checksum is fetched again before the guest sees EIO. */
const VERIFY_ATTEMPTS_MAX = 3;
/** Rounds of "fetch what is missing, try again": granules may be evicted between the two. */
const ROUNDS_MAX = 8;

/** What a device tells whoever watches its misses (quality counters). */
export interface MissObserver {
  /** A guest's read that found something missing: called before anything is fetched for it. */
  onMiss(offset: number, length: number): MissSource;
  /** The miss was answered, or failed, after `latencyMs`. */
  onMissDone(latencyMs: number, error: ReplaybdError | null, source: MissSource): void;
}

export interface MissOptions {
  id: string;
  clock: Clock;
  log: Logger;
  observer: MissObserver;
}

/** What reads are answered from at the moment; a snapshot changes both. */
export interface ReadState {
  readonly stack: Stack;
  readonly reader: CachedReader;
}

/** The other way to read: fetches what is missing and reads again. */
export class MissReader {
  readonly #options: MissOptions;
  readonly #current: () => ReadState;

  constructor(options: MissOptions, current: () => ReadState) {
    this.#options = options;
    this.#current = current;
  }

  /** See BlockDevice.read. The tap is not told: whoever calls this has tried readCached first. */
  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    const { id, clock, log, observer } = this.#options;
    const startedMs = clock.nowMs();
    const source = observer.onMiss(offset, into.length);
    try {
      await this.#fetchAndRead(offset, into, signal);
      observer.onMissDone(clock.nowMs() - startedMs, null, source);
    } catch (error) {
      const failure = asReadError(error, offset);
      const facts = { device: id, offset, length: into.length, code: failure.code };
      log.error(facts, failure.message);
      observer.onMissDone(clock.nowMs() - startedMs, failure, source);
      throw failure;
    }
  }

  async #fetchAndRead(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    let verifyFailures = 0;
    for (let round = 0; round < ROUNDS_MAX; round += 1) {
      await this.#ensure(offset, into.length, signal);
      const { reader } = this.#current();
      if (reader.readUntapped(offset, into)) return;
      if (reader.isRetired) continue;
      const { failure } = reader;
      if (failure.kind !== 'bad') continue;
      verifyFailures += 1;
      this.#dropBad(failure, verifyFailures);
    }
    throw new ReplaybdError(
      'ERR_READ_EVICTED',
      `device ${this.#options.id}: bytes at ${offset} are evicted faster than they can be read. ` +
        'Give the cache a larger quota.',
    );
  }

  /** Has a bad block fetched again, and throws where that cannot help, or has not so far. */
  #dropBad({ layer, block, reason, blobOffset, blobLength }: ReadFailure, failures: number): void {
    const { blob } = this.#current().stack.layers[layer];
    const where =
      blobLength === 0
        ? `${blob.name}: block ${block} lies outside the layer (${reason})`
        : `${blob.name}: block at byte ${blobOffset} (${blobLength} bytes) is damaged (${reason})`;
    this.#options.log.warn({ device: this.#options.id, failures }, where);
    if (blobLength > 0 && blob.drop(blobOffset, blobLength) && failures < VERIFY_ATTEMPTS_MAX)
      return;
    throw new ReplaybdError(
      'ERR_BLOCK_VERIFY',
      `${where} after ${failures} attempt(s). ` +
        'The layer is damaged at its source: compare its sha256 with the digest.',
    );
  }

  /** Fetches every blob range behind [offset, offset + length) that is not local. */
  async #ensure(offset: number, length: number, signal?: AbortSignal): Promise<void> {
    const waits: Promise<void>[] = [];
    for (const [blob, ranges] of this.#blobRanges(offset, length)) {
      for (const range of ranges) {
        if (blob.has(range.offset, range.length)) continue;
        waits.push(blob.ensure(range.offset, range.length, signal === undefined ? {} : { signal }));
      }
    }
    await Promise.all(waits);
  }

  /** What a writable layer hides is not needed, and not fetched. */
  #blobRanges(offset: number, length: number): Map<Blob, ByteRange[]> {
    const { stack, reader } = this.#current();
    const byBlob = new Map<Blob, ByteRange[]>();
    for (const run of reader.writableRuns(offset / SECTOR_BYTES, length / SECTOR_BYTES)) {
      if (run.kind !== runKinds.absent) continue;
      for (const piece of stack.locate(run.lba, run.sectors)) {
        const { blob } = stack.layers[piece.layer];
        const ranges = byBlob.get(blob) ?? [];
        ranges.push(stack.blobRangeOf(piece));
        byBlob.set(blob, ranges);
      }
    }
    for (const [blob, ranges] of byBlob) byBlob.set(blob, mergeRanges(ranges));
    return byBlob;
  }
}

/** A range told apart by where there is data; the rest reads as zeros. */
export function extentsOf(
  offset: number,
  length: number,
  dataRanges: readonly ByteRange[],
): DeviceExtent[] {
  const extents: DeviceExtent[] = [];
  let position = offset;
  for (const range of mergeRanges(dataRanges)) {
    if (range.offset > position) {
      extents.push({ offset: position, length: range.offset - position, zero: true });
    }
    extents.push({ ...range, zero: false });
    position = range.offset + range.length;
  }
  const end = offset + length;
  if (position < end) extents.push({ offset: position, length: end - position, zero: true });
  return extents;
}

/** What of some sectors the layers of a stack have data for, in bytes. */
export function stackData(stack: Stack, lba: number, sectors: number): ByteRange[] {
  return stack.locate(lba, sectors).map((piece) => ({
    offset: piece.lba * SECTOR_BYTES,
    length: piece.sectors * SECTOR_BYTES,
  }));
}

/** A disk fails in one way only: a registry's ENOENT or EACCES would puzzle a guest. */
function asReadError(error: unknown, offset: number): ReplaybdError {
  if (!(error instanceof ReplaybdError)) {
    const message = `read at byte ${offset}: ${messageOf(error)}`;
    return new ReplaybdError('ERR_READ', message, { cause: error });
  }
  if (error.errno === 'EIO') return error;
  return new ReplaybdError(error.code, error.message, { cause: error });
}
