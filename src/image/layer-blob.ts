import {
  createReadKernel,
  OPS_MAX,
  readResult,
  type ReadFailure,
  type ReadKernel,
} from '../../native/kernels.ts';
import type { Blob } from '../blob/blob.ts';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { GRANULE_BYTES, layerBlobLimits } from '../base/limits.ts';
import { alignToGranules, type ByteRange } from '../base/range.ts';
import { BlobReader } from './blob-reader.ts';
import type { LayerBytes, LayerPiece } from './layer-bytes.ts';
import { JUMP_TABLE_GROUP_SHIFT, type LayerMap, type ZFileMap } from './stack-map.ts';
import { peelTar, TAR_PROBE_BYTES } from './tar-wrapper.ts';
import { hasZFileMagic } from './zfile/format.ts';
import { openZFile, type ZFileFacts } from './zfile/reader.ts';

/** A blob's trailer, and the zeros with which a tar ends, lie within these last bytes. */
const TAIL_END_BYTES = 16 * 1024;

/** How a layer is packed. */
export interface LayerBlobFacts {
  readonly hasTarWrapper: boolean;
  /** The tar's payload, or the whole blob. */
  readonly payload: ByteRange;
  /** Null for a layer that is not compressed. */
  readonly zfile: ZFileFacts | null;
}

/** A blob, opened as far as its LSMT file. */
export interface LayerBlob {
  readonly map: LayerMap;
  readonly bytes: LayerBytes;
  /** Blob ranges that opening read: wrapper, header, jump table, trailer. */
  readonly metadataRanges: readonly ByteRange[];
  readonly facts: LayerBlobFacts;
}

/**
 * Takes off the tar wrapper, if any, and opens the ZFile, if it is one; what remains is an LSMT
 * file, whose own format is not looked at here. Metadata that fails verification is fetched again a
 * few times. Errors: ERR_TAR_*, ERR_ZFILE_*, and what fetching throws.
 */
export async function openLayerBlob(blob: Blob): Promise<LayerBlob> {
  await fetchEnds(blob);
  for (let attempt = 1; ; attempt += 1) {
    const reader = new BlobReader(blob);
    try {
      return await open(reader);
    } catch (error) {
      const isDamage = /^ERR_(ZFILE|TAR)_/.test(codeOf(error));
      const mayRetry = isDamage && attempt < layerBlobLimits.verifyAttemptsMax;
      if (!mayRetry || !reader.dropAll()) throw error;
    }
  }
}

/** A layer as it was opened, on another opening of the same blob. Nothing is read. */
export function layerBlobOn(layer: LayerBlob, blob: Blob): LayerBlob {
  const map: LayerMap = { ...layer.map, blob: blob.map };
  return { ...layer, map, bytes: new LayerBlobBytes(blob, map) };
}

async function open(reader: BlobReader): Promise<LayerBlob> {
  const { blob } = reader;
  const first = await reader.read(0, Math.min(TAR_PROBE_BYTES, blob.sizeBytes));
  const wrapped = peelTar(first, blob.sizeBytes, blob.name);
  const payload = wrapped ?? { offset: 0, length: blob.sizeBytes };
  const zfile = hasZFileMagic(first.subarray(payload.offset))
    ? await openZFile(reader, payload)
    : null;
  const map: LayerMap = {
    blob: blob.map,
    codec: zfile?.facts.algorithm ?? 'raw',
    payloadOffset: payload.offset,
    lsmtSizeBytes: zfile?.facts.originalBytes ?? payload.length,
    zfile: zfile?.map ?? null,
  };
  return {
    map,
    bytes: new LayerBlobBytes(blob, map),
    metadataRanges: reader.ranges,
    facts: { hasTarWrapper: wrapped !== null, payload, zfile: zfile?.facts ?? null },
  };
}

/**
 * Starts both ends of the blob at once, so that opening a remote layer costs one round trip
 * rather than three. A jump table takes about 1/500 of a blob of 4 KiB blocks. Where a replay is
 * fetching the end already, it fetches what is needed of it: there is nothing to guess.
 */
async function fetchEnds(blob: Blob): Promise<void> {
  const { sizeBytes } = blob;
  const { tailGuessBytesMin, tailGuessBytesMax } = layerBlobLimits;
  const lastBytes = Math.min(TAIL_END_BYTES, sizeBytes);
  if (blob.isUnderWay?.(sizeBytes - lastBytes, lastBytes) === true) return;
  const guess = Math.ceil(sizeBytes / 400) + tailGuessBytesMin / 2;
  const tailBytes = Math.min(Math.max(guess, tailGuessBytesMin), tailGuessBytesMax, sizeBytes);
  const tail = alignToGranules({ offset: sizeBytes - tailBytes, length: tailBytes }, sizeBytes);
  const head = { offset: 0, length: Math.min(GRANULE_BYTES, tail.offset) };
  const ends = [head, tail].filter(({ length }) => length > 0);
  await Promise.all(ends.map(({ offset, length }) => blob.ensure(offset, length)));
}

/**
 * The blob bytes that bytes [offset, offset + length) of a layer's LSMT file need. What lies behind
 * the file's end needs none: a damaged index may ask for it.
 */
export function blobRange(map: LayerMap, offset: number, length: number): ByteRange {
  const { zfile, payloadOffset, lsmtSizeBytes } = map;
  const start = Math.min(offset, lsmtSizeBytes);
  const end = Math.min(offset + length, lsmtSizeBytes);
  if (zfile === null) return { offset: payloadOffset + start, length: end - start };
  const blobStart = blockOffset(zfile, Math.floor(start / zfile.blockBytes));
  return {
    offset: blobStart,
    length: blockOffset(zfile, Math.ceil(end / zfile.blockBytes)) - blobStart,
  };
}

function blockOffset(zfile: ZFileMap, block: number): number {
  return zfile.groupBase[block >>> JUMP_TABLE_GROUP_SHIFT] + zfile.withinGroup[block];
}

class LayerBlobBytes implements LayerBytes {
  readonly name: string;
  readonly sizeBytes: number;
  readonly #blob: Blob;
  readonly #map: LayerMap;
  readonly #kernel: ReadKernel;

  constructor(blob: Blob, map: LayerMap) {
    this.name = blob.name;
    this.sizeBytes = map.lsmtSizeBytes;
    this.#blob = blob;
    this.#map = map;
    this.#kernel = createReadKernel([map]);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.sizeBytes)) {
      throw new ReplaybdError(
        'ERR_LAYER_RANGE',
        `${this.name}: expected a range within the layer's ${this.sizeBytes} bytes, ` +
          `found ${length} bytes at ${offset}. The layer is damaged or incomplete.`,
      );
    }
    const bytes = new Uint8Array(length);
    if (length === 0) return bytes;
    const stored = blobRange(this.#map, offset, length);
    const { verifyAttemptsMax, evictedAttemptsMax } = layerBlobLimits;
    for (let failures = 0, evictions = 0; evictions < evictedAttemptsMax;) {
      await this.#blob.ensure(stored.offset, stored.length);
      const failure = this.#readNow(offset, bytes);
      if (failure === null) return bytes;
      if (failure.kind === 'missing') {
        evictions += 1;
        continue;
      }
      failures += 1;
      const canRefetch =
        failure.blobLength > 0 && this.#blob.drop(failure.blobOffset, failure.blobLength);
      if (!canRefetch || failures >= verifyAttemptsMax) throw this.#damaged(failure, failures);
    }
    throw new ReplaybdError(
      'ERR_BLOB_EVICTED',
      `${this.name}: bytes are evicted faster than they can be read. ` +
        'Give the cache a larger quota.',
    );
  }

  async readPieces(pieces: readonly LayerPiece[], into: Uint8Array): Promise<void> {
    for (let at = 0; at < pieces.length; at += OPS_MAX) {
      const some = pieces.slice(at, at + OPS_MAX);
      const { ops } = this.#kernel;
      ops.clear();
      for (const { offset, length, target } of some) ops.push(0, offset, length, target);
      if (this.#kernel.run(into) === readResult.ok) continue;
      // Something is not local, or damaged: each piece sees to itself.
      await Promise.all(
        some.map(async ({ offset, length, target }) => {
          into.set(await this.read(offset, length), target);
        }),
      );
    }
  }

  #readNow(offset: number, into: Uint8Array): ReadFailure | null {
    this.#kernel.ops.clear();
    this.#kernel.ops.push(0, offset, into.length, 0);
    return this.#kernel.run(into) === readResult.ok ? null : this.#kernel.failure;
  }

  #damaged(failure: ReadFailure, attempts: number): ReplaybdError {
    const what =
      failure.reason === 'decode' ? 'does not decode' : `fails its ${failure.reason} check`;
    return new ReplaybdError(
      'ERR_ZFILE_BLOCK_CHECKSUM',
      `${this.name}: block ${failure.block} (${failure.blobLength} bytes at byte ` +
        `${failure.blobOffset}) ${what} after ${attempts} attempt(s). The layer is damaged at ` +
        'its source: compare its sha256 with its digest.',
    );
  }
}
