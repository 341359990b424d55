import assert from 'node:assert';
import { existsSync } from 'node:fs';
import koffi, { type LibraryHandle } from 'koffi';
import { packageRoot } from '../src/base/package-root.ts';
import { ReplaybdError } from '../src/base/errors.ts';
import type { LayerCodec, LayerMap } from '../src/image/stack-map.ts';
import { assertLayerMap } from './layer-map-checks.ts';
import {
  failureReasons,
  OpTable,
  OPS_MAX,
  readResult,
  type ReadFailure,
  type ReadKernel,
  type ReadResult,
} from './read-ops.ts';

/** The functions of dist/libreplaybd.so. */
export interface NativeKernels {
  /** What it can decode on this machine. */
  readonly codecs: ReadonlySet<LayerCodec>;
  read(reader: number, opCount: number, target: number, targetBytes: number): number;
  /** CRC-32C without inversions; `portable` 1 selects the table-driven version. */
  crc32cRaw(seed: number, bytes: Uint8Array, length: number, portable: 0 | 1): number;
}

/** The `rbd_layout` of the structures that this file fills. */
const LAYOUT = 1;

let loaded: NativeKernels | null | undefined;

/** The compiled kernels, or null when native/setup.sh did not build them for this machine. */
export function loadNativeKernels(): NativeKernels | null {
  loaded ??= load();
  return loaded;
}

/** dist/libreplaybd.so, or null when it is absent, or was built from other sources than these. */
export function loadNativeLibrary(): LibraryHandle | null {
  const path = `${packageRoot}/dist/libreplaybd.so`;
  if (!existsSync(path)) return null;
  try {
    const library = koffi.load(path);
    return Number(library.func('uint32_t rbd_layout()')()) === LAYOUT ? library : null;
  } catch {
    // Built for another machine: the portable kernels work everywhere.
    return null;
  }
}

function load(): NativeKernels | null {
  const library = loadNativeLibrary();
  if (library === null) return null;
  try {
    const available = Number(library.func('uint32_t rbd_codecs()')());
    const codecs = new Set<LayerCodec>(['raw']);
    if ((available & 1) !== 0) codecs.add('lz4');
    if ((available & 2) !== 0) codecs.add('zstd');
    return {
      codecs,
      read: library.func(
        'int rbd_read(uintptr_t reader, uint32_t ops, uintptr_t target, uint64_t bytes)',
      ),
      crc32cRaw: library.func(
        'uint32_t rbd_crc32c_raw(uint32_t seed, const uint8_t *bytes, size_t length, int portable)',
      ),
    };
  } catch {
    // Built from other sources.
    return null;
  }
}

/** A larger destination is not remembered, because that keeps its memory: an index, for one. */
const REMEMBERED_BYTES_MAX = 2 ** 20;

const LAYER_BYTES = 72;
const FAILURE_BYTES = 32;
const codecNumbers: Record<LayerCodec, number> = { raw: 0, lz4: 1, zstd: 2 };

/** One native call a read, over tables whose addresses are taken once. */
export class NativeReadKernel implements ReadKernel {
  readonly kind = 'native';
  readonly ops = new OpTable();
  readonly #read: NativeKernels['read'];
  readonly #failureBytes = new Uint8Array(FAILURE_BYTES);
  readonly #failure = new DataView(this.#failureBytes.buffer);
  readonly #reader: Uint8Array;
  readonly #readerAddress: number;
  /** Native code holds addresses into these: they must live as long as the kernel. */
  readonly keptAlive: readonly unknown[];
  #lastTarget: Uint8Array | null = null;
  #lastTargetAddress = 0;

  constructor(library: NativeKernels, layers: readonly LayerMap[]) {
    layers.forEach(assertLayerMap);
    this.#read = library.read;
    const table = layerTable(layers);
    this.#reader = new Uint8Array(
      new BigUint64Array([
        koffi.address(table),
        koffi.address(this.ops.bytes),
        koffi.address(this.#failureBytes),
        BigInt(layers.length),
      ]).buffer,
    );
    this.#readerAddress = Number(koffi.address(this.#reader));
    this.keptAlive = [table, layers];
  }

  run(dst: Uint8Array): ReadResult {
    const { count } = this.ops;
    assert(count <= OPS_MAX);
    if (count === 0) return readResult.ok;
    const result = this.#read(this.#readerAddress, count, this.#addressOf(dst), dst.length);
    if (result === readResult.ok) return readResult.ok;
    if (result === readResult.missing) return readResult.missing;
    if (result === readResult.bad) return readResult.bad;
    throw new ReplaybdError('ERR_KERNEL_MEMORY', 'read kernel: out of memory for its buffers');
  }

  get failure(): ReadFailure {
    const op = this.#failure.getUint32(16, true);
    const reason = failureReasons[this.#failure.getUint32(24, true)];
    return {
      kind: reason === 'missing' ? 'missing' : 'bad',
      reason,
      op,
      layer: this.ops.layer(op),
      block: this.#failure.getUint32(20, true),
      blobOffset: this.#failure.getFloat64(0, true),
      blobLength: this.#failure.getFloat64(8, true),
    };
  }

  /**
   * A buffer's bytes never move while it is attached, so a front end that reads into the same one
   * again and again pays for its address once. A detached one has length 0 and fails the range
   * check.
   */
  #addressOf(dst: Uint8Array): number {
    if (dst.length > REMEMBERED_BYTES_MAX) return Number(koffi.address(dst));
    if (dst !== this.#lastTarget) {
      this.#lastTargetAddress = Number(koffi.address(dst));
      this.#lastTarget = dst;
    }
    return this.#lastTargetAddress;
  }
}

/** `struct layer` of kernels.c, one after the other. */
function layerTable(layers: readonly LayerMap[]): Uint8Array {
  const bytes = new Uint8Array(Math.max(layers.length, 1) * LAYER_BYTES);
  const table = new DataView(bytes.buffer);
  layers.forEach(({ blob, codec, payloadOffset, lsmtSizeBytes, zfile }, number) => {
    const at = number * LAYER_BYTES;
    table.setBigUint64(at, BigInt(blob.address), true);
    table.setBigUint64(at + 8, BigInt(blob.sizeBytes), true);
    table.setBigUint64(at + 16, addressOrNull(blob.presence), true);
    table.setBigUint64(at + 24, BigInt(payloadOffset), true);
    table.setBigUint64(at + 32, BigInt(lsmtSizeBytes), true);
    table.setUint32(at + 56, codecNumbers[codec], true);
    if (zfile === null) return;
    table.setBigUint64(at + 40, koffi.address(zfile.groupBase), true);
    table.setBigUint64(at + 48, koffi.address(zfile.withinGroup), true);
    table.setUint32(at + 60, Math.log2(zfile.blockBytes), true);
    table.setUint32(at + 64, zfile.hasBlockCrc ? 1 : 0, true);
  });
  return bytes;
}

function addressOrNull(buffer: SharedArrayBuffer | null): bigint {
  return buffer === null || buffer.byteLength === 0 ? 0n : koffi.address(new Uint8Array(buffer));
}
