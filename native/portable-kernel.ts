import assert from 'node:assert';
import koffi from 'koffi';
import { crc32cRaw } from '../src/base/crc32c.ts';
import { GRANULE_BYTES, zfileLimits } from '../src/base/limits.ts';
import type { ByteRange } from '../src/base/range.ts';
import { JUMP_TABLE_GROUP_SHIFT, type LayerMap, type ZFileMap } from '../src/image/stack-map.ts';
import type { BlockCodec, BlockCodecName } from './codecs.ts';
import { assertLayerMap } from './layer-map-checks.ts';
import {
  OpTable,
  OPS_MAX,
  readResult,
  type FailureReason,
  type ReadFailure,
  type ReadKernel,
  type ReadResult,
} from './read-ops.ts';

const BLOCK_CRC_SEED = 100_007;
const CRC_BYTES = 4;
const STORED_BYTES_MAX = zfileLimits.blockBytesMax + zfileLimits.expansionBytesMax + CRC_BYTES;

/** A layer as this thread reads it. */
interface PortableLayer {
  map: LayerMap;
  bytes: Uint8Array;
  presence: Int32Array | null;
  codec: BlockCodec | null;
}

/** The kernel without native code: kernels.c step by step, for machines where that is absent. */
export class PortableReadKernel implements ReadKernel {
  readonly kind = 'portable';
  readonly ops = new OpTable();
  readonly #layers: readonly PortableLayer[];
  readonly #stored = new Uint8Array(STORED_BYTES_MAX);
  readonly #plain = new Uint8Array(zfileLimits.blockBytesMax);
  /** Which block `#plain` holds during one run. */
  #plainLayer: PortableLayer | null = null;
  #plainBlock = 0;
  #failure: ReadFailure | null = null;

  constructor(layers: readonly LayerMap[], codecOf: (name: BlockCodecName) => BlockCodec) {
    layers.forEach(assertLayerMap);
    this.#layers = layers.map((map) => ({
      map,
      bytes: mappedBytes(map.blob.address, map.blob.sizeBytes),
      presence: map.blob.presence === null ? null : new Int32Array(map.blob.presence),
      codec: map.codec === 'raw' ? null : codecOf(map.codec),
    }));
  }

  get failure(): ReadFailure {
    assert(this.#failure !== null, 'no run has failed');
    return this.#failure;
  }

  run(dst: Uint8Array): ReadResult {
    const { ops } = this;
    assert(ops.count <= OPS_MAX);
    this.#plainLayer = null;
    let result = this.#checkOps(dst.length);
    for (let op = 0; op < ops.count && result === readResult.ok; op += 1) {
      const target = dst.subarray(ops.targetOffset(op), ops.targetOffset(op) + ops.length(op));
      if (ops.isZero(op)) target.fill(0);
      else result = this.#readOp(op, target);
    }
    return result;
  }

  /** Before anything is decoded: every op lies inside its layer and the target, and is present. */
  #checkOps(targetBytes: number): ReadResult {
    const { ops } = this;
    for (let op = 0; op < ops.count; op += 1) {
      const length = ops.length(op);
      if (ops.targetOffset(op) + length > targetBytes) return this.#fail(op, 'range');
      if (ops.isZero(op)) continue;
      const layer = this.#layers.at(ops.layer(op));
      if (layer === undefined || !isInLayer(layer.map, ops.offset(op), length)) {
        return this.#fail(op, 'range');
      }
      if (layer.presence === null) continue;
      const range = locate(layer.map, ops.offset(op), length);
      if (range === null) return this.#fail(op, 'table');
      if (!isPresent(layer, range)) return this.#fail(op, 'missing', 0, range);
    }
    return readResult.ok;
  }

  #readOp(op: number, target: Uint8Array): ReadResult {
    const layer = this.#layers[this.ops.layer(op)];
    const { zfile } = layer.map;
    if (layer.codec === null || zfile === null) return this.#readRaw(op, layer, target);
    return this.#readCompressed(op, layer, zfile, layer.codec, target);
  }

  #readRaw(op: number, layer: PortableLayer, target: Uint8Array): ReadResult {
    const range = { offset: layer.map.payloadOffset + this.ops.offset(op), length: target.length };
    if (!isPresent(layer, range)) return this.#fail(op, 'missing', 0, range);
    target.set(layer.bytes.subarray(range.offset, range.offset + range.length));
    return isPresent(layer, range) ? readResult.ok : this.#fail(op, 'missing', 0, range);
  }

  #readCompressed(
    op: number,
    layer: PortableLayer,
    zfile: ZFileMap,
    codec: BlockCodec,
    target: Uint8Array,
  ): ReadResult {
    const { blockBytes } = zfile;
    const start = this.ops.offset(op);
    for (let done = 0; done < target.length;) {
      const block = Math.floor((start + done) / blockBytes);
      const expected = Math.min(blockBytes, layer.map.lsmtSizeBytes - block * blockBytes);
      const skipped = start + done - block * blockBytes;
      const wanted = Math.min(expected - skipped, target.length - done);
      if (wanted === expected) {
        const whole = target.subarray(done, done + wanted);
        const result = this.#readBlock(op, layer, zfile, codec, block, whole);
        if (result !== readResult.ok) return result;
      } else {
        if (this.#plainLayer !== layer || this.#plainBlock !== block) {
          this.#plainLayer = null;
          const plain = this.#plain.subarray(0, expected);
          const result = this.#readBlock(op, layer, zfile, codec, block, plain);
          if (result !== readResult.ok) return result;
          this.#plainLayer = layer;
          this.#plainBlock = block;
        }
        target.set(this.#plain.subarray(skipped, skipped + wanted), done);
      }
      done += wanted;
    }
    return readResult.ok;
  }

  /** Decodes the whole of a block, `target.length` bytes. */
  #readBlock(
    op: number,
    layer: PortableLayer,
    zfile: ZFileMap,
    codec: BlockCodec,
    block: number,
    target: Uint8Array,
  ): ReadResult {
    const offset = blockStart(layer.map, zfile, block);
    const end = blockStart(layer.map, zfile, block + 1);
    const crcBytes = zfile.hasBlockCrc ? CRC_BYTES : 0;
    const storedMax = zfile.blockBytes + zfileLimits.expansionBytesMax + crcBytes;
    if (offset < 0 || end <= offset + crcBytes || end - offset > storedMax) {
      return this.#fail(op, 'table', block);
    }
    const range = { offset, length: end - offset };
    let stored = layer.bytes.subarray(offset, end);
    if (layer.presence !== null) {
      // Bytes that may go away are copied first, so that what is checked is what is decoded.
      if (!isPresent(layer, range)) return this.#fail(op, 'missing', block, range);
      this.#stored.set(stored);
      if (!isPresent(layer, range)) return this.#fail(op, 'missing', block, range);
      stored = this.#stored.subarray(0, range.length);
    }
    const payload = stored.subarray(0, range.length - crcBytes);
    if (crcBytes !== 0) {
      const expectedCrc = readUint32(stored, payload.length);
      if (crc32cRaw(BLOCK_CRC_SEED, payload) !== expectedCrc) {
        return this.#fail(op, 'checksum', block, range);
      }
    }
    if (codec.decompress(payload, target) !== target.length) {
      return this.#fail(op, 'decode', block, range);
    }
    return readResult.ok;
  }

  #fail(
    op: number,
    reason: FailureReason,
    block = 0,
    range: ByteRange = { offset: 0, length: 0 },
  ): ReadResult {
    const kind = reason === 'missing' ? 'missing' : 'bad';
    const layer = this.ops.layer(op);
    this.#failure = {
      kind,
      reason,
      op,
      layer,
      block,
      blobOffset: range.offset,
      blobLength: range.length,
    };
    return readResult[kind];
  }
}

function mappedBytes(address: number, sizeBytes: number): Uint8Array {
  if (sizeBytes === 0) return new Uint8Array(0);
  return new Uint8Array(koffi.view(BigInt(address), sizeBytes));
}

function isInLayer(map: LayerMap, offset: number, length: number): boolean {
  return offset >= 0 && length > 0 && offset + length <= map.lsmtSizeBytes;
}

/** The blob bytes behind LSMT bytes; null when the jump table makes no sense. */
function locate(map: LayerMap, offset: number, length: number): ByteRange | null {
  if (map.zfile === null) return { offset: map.payloadOffset + offset, length };
  const { blockBytes } = map.zfile;
  const start = blockStart(map, map.zfile, Math.floor(offset / blockBytes));
  const end = blockStart(map, map.zfile, Math.floor((offset + length - 1) / blockBytes) + 1);
  return start < 0 || end < start ? null : { offset: start, length: end - start };
}

/** Blob offset of a block, or -1 when the table leads outside the blob. */
function blockStart(map: LayerMap, zfile: ZFileMap, block: number): number {
  const start = zfile.groupBase[block >>> JUMP_TABLE_GROUP_SHIFT] + zfile.withinGroup[block];
  return start >= 0 && start <= map.blob.sizeBytes ? Math.floor(start) : -1;
}

function isPresent(layer: PortableLayer, range: ByteRange): boolean {
  const { presence } = layer;
  if (presence === null || range.length === 0) return true;
  const last = Math.floor((range.offset + range.length - 1) / GRANULE_BYTES);
  for (let granule = Math.floor(range.offset / GRANULE_BYTES); granule <= last; granule += 1) {
    if (((Atomics.load(presence, granule >>> 5) >>> (granule & 31)) & 1) === 0) return false;
  }
  return true;
}

function readUint32(bytes: Uint8Array, offset: number): number {
  const word = bytes[offset] | (bytes[offset + 1] << 8) | (bytes[offset + 2] << 16);
  return (word | (bytes[offset + 3] << 24)) >>> 0;
}
