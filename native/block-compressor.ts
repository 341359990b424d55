import koffi, { type KoffiFunc } from 'koffi';
import { crc32cRaw } from '../src/base/crc32c.ts';
import { zfileLimits } from '../src/base/limits.ts';
import { blockCodec, type BlockCodec, type BlockCodecName } from './codecs.ts';
import { loadNativeLibrary } from './native-kernel.ts';

/** How the blocks of a ZFile are stored. */
export interface BlockCoding {
  codec: BlockCodecName;
  /** Plain bytes of a block; the last of a batch may be shorter. */
  blockBytes: number;
  hasBlockCrc: boolean;
}

/**
 * Some blocks on their way through a compressor. Its buffers must be left alone while they are
 * being compressed.
 */
export interface BlockBatch {
  /** What to compress; room for whole blocks. */
  readonly plain: Buffer;
  /** Afterwards: the blocks as they are stored, one behind the other. */
  readonly stored: Buffer;
  /** Afterwards: how long each is, CRC included. */
  readonly lengths: Uint32Array;
}

/** Compresses batches of blocks. */
export interface BlockCompressor {
  readonly kind: 'native' | 'portable';
  /** A batch with room for `plainBytes`, which are whole blocks. */
  makeBatch(plainBytes: number): BlockBatch;
  /**
   * The bytes stored of the batch's first `plainBytes`, or -1 - n when block n does not fit the room
   * that the original's writer has for it. A native one works on a thread of Node's pool, so several
   * calls, of different batches, go on at the same time.
   */
  compress(batch: BlockBatch, plainBytes: number): Promise<number>;
}

const CRC_SEED = 100_007;
const CRC_BYTES = 4;

/**
 * The native compressor where its library and the codec's are present and REPLAYBD_NATIVE is not
 * '0'. A `codec` that is given is used by the portable one.
 */
export function createBlockCompressor(coding: BlockCoding, codec?: BlockCodec): BlockCompressor {
  if (codec !== undefined) return new PortableCompressor(coding, codec);
  const encoders = process.env.REPLAYBD_NATIVE === '0' ? null : loadEncoders();
  return encoders !== null && encoders.codecs.has(coding.codec)
    ? new NativeCompressor(coding, encoders)
    : new PortableCompressor(coding, blockCodec(coding.codec));
}

interface NativeEncoders {
  readonly codecs: ReadonlySet<BlockCodecName>;
  readonly compress: KoffiFunc<(batch: bigint) => number | bigint>;
}

let loaded: NativeEncoders | null | undefined;

function loadEncoders(): NativeEncoders | null {
  loaded ??= load();
  return loaded;
}

function load(): NativeEncoders | null {
  try {
    const library = loadNativeLibrary();
    if (library === null) return null;
    const available = Number(library.func('uint32_t rbd_encoders()')());
    const codecs = new Set<BlockCodecName>();
    if ((available & 1) !== 0) codecs.add('lz4');
    if ((available & 2) !== 0) codecs.add('zstd');
    return { codecs, compress: library.func('int64_t rbd_compress(uintptr_t batch)') };
  } catch {
    return null;
  }
}

function makeBatch({ blockBytes }: BlockCoding, plainBytes: number): BlockBatch {
  const blocks = Math.ceil(plainBytes / blockBytes);
  const blockRoom = blockBytes + zfileLimits.expansionBytesMax + CRC_BYTES;
  return {
    plain: Buffer.allocUnsafeSlow(blocks * blockBytes),
    stored: Buffer.allocUnsafeSlow(blocks * blockRoom),
    lengths: new Uint32Array(blocks),
  };
}

const codecNumbers: Record<BlockCodecName, number> = { lz4: 1, zstd: 2 };

/** One native call a batch, on a thread of its own. */
class NativeCompressor implements BlockCompressor {
  readonly kind = 'native';
  readonly #coding: BlockCoding;
  readonly #compress: NativeEncoders['compress'];
  /** What native code has the addresses of. */
  readonly #inUse = new Set<object>();

  constructor(coding: BlockCoding, encoders: NativeEncoders) {
    this.#coding = coding;
    this.#compress = encoders.compress;
  }

  makeBatch(plainBytes: number): BlockBatch {
    return makeBatch(this.#coding, plainBytes);
  }

  compress(batch: BlockBatch, plainBytes: number): Promise<number> {
    const { codec, blockBytes, hasBlockCrc } = this.#coding;
    // `struct batch` of write-kernels.c.
    const request = new Uint8Array(40);
    const addresses = new BigUint64Array(request.buffer, 0, 3);
    addresses[0] = koffi.address(batch.plain);
    addresses[1] = koffi.address(batch.stored);
    addresses[2] = koffi.address(batch.lengths);
    new Uint32Array(request.buffer, 24).set([
      plainBytes,
      blockBytes,
      codecNumbers[codec],
      hasBlockCrc ? 1 : 0,
    ]);
    const inUse = { batch, request };
    this.#inUse.add(inUse);
    return new Promise((resolve, reject) => {
      this.#compress.async(koffi.address(request), (error: Error | null, stored) => {
        this.#inUse.delete(inUse);
        if (error !== null) reject(error);
        else resolve(Number(stored));
      });
    });
  }
}

/** The same in TypeScript, block by block. */
class PortableCompressor implements BlockCompressor {
  readonly kind = 'portable';
  readonly #coding: BlockCoding;
  readonly #codec: BlockCodec;

  constructor(coding: BlockCoding, codec: BlockCodec) {
    this.#coding = coding;
    this.#codec = codec;
  }

  makeBatch(plainBytes: number): BlockBatch {
    return makeBatch(this.#coding, plainBytes);
  }

  async compress(batch: BlockBatch, plainBytes: number): Promise<number> {
    const { blockBytes, hasBlockCrc } = this.#coding;
    const room = blockBytes + zfileLimits.expansionBytesMax;
    let end = 0;
    for (let at = 0, block = 0; at < plainBytes; at += blockBytes, block += 1) {
      const plain = batch.plain.subarray(at, Math.min(at + blockBytes, plainBytes));
      const start = end;
      const length = this.#codec.compress(plain, batch.stored.subarray(start, start + room));
      if (length < 0) return -1 - block;
      end += length;
      if (hasBlockCrc) {
        end = batch.stored.writeUInt32LE(
          crc32cRaw(CRC_SEED, batch.stored.subarray(start, end)),
          end,
        );
      }
      batch.lengths[block] = end - start;
    }
    return end;
  }
}
