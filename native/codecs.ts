import { constants, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import koffi, { type LibraryHandle } from 'koffi';
import { compressSync, uncompressSync } from 'lz4-napi';

/** A codec of single ZFile blocks. */
export interface BlockCodec {
  /**
   * Decodes all of `stored` into `target`; the decoded length, or -1 when it does not fit or parse.
   */
  decompress(stored: Uint8Array, target: Uint8Array): number;
  /** Encodes `plain` into `target`; the encoded length, or -1 when it does not fit. */
  compress(plain: Uint8Array, target: Uint8Array): number;
}

export type BlockCodecName = 'lz4' | 'zstd';

/** ZFile writers use this level whatever the header's `level` field says. */
const ZSTD_LEVEL = 3;

const chosen = new Map<BlockCodecName, BlockCodec>();

/** The system library's codec where it loads, the npm package's or Node's own otherwise. */
export function blockCodec(name: BlockCodecName): BlockCodec {
  const known = chosen.get(name);
  if (known !== undefined) return known;
  const codec = systemCodec(name) ?? bundledCodec(name);
  chosen.set(name, codec);
  return codec;
}

/**
 * liblz4 or libzstd through koffi: their compressed bytes are the original's own (liblz4 of any
 * version; libzstd 1.5.4 was compared). Null where the library is absent.
 */
export function systemCodec(name: BlockCodecName): BlockCodec | null {
  try {
    // Deeply bound: Node has a libzstd of its own inside, whose functions this one would call.
    return name === 'lz4'
      ? systemLz4(koffi.load('liblz4.so.1', { deep: true }))
      : systemZstd(koffi.load('libzstd.so.1', { deep: true }));
  } catch {
    return null;
  }
}

/**
 * lz4-napi or node:zlib. What they compress is valid and any reader takes it, but its bytes, and
 * hence a layer's digest, differ from what the original writes.
 */
export function bundledCodec(name: BlockCodecName): BlockCodec {
  return name === 'lz4' ? bundledLz4 : bundledZstd;
}

function systemLz4(library: LibraryHandle): BlockCodec {
  const decode = library.func(
    'int LZ4_decompress_safe(const uint8_t *source, uint8_t *target, int bytes, int capacity)',
  );
  const encode = library.func(
    'int LZ4_compress_default(const uint8_t *source, uint8_t *target, int bytes, int capacity)',
  );
  return {
    decompress(stored, target) {
      const length = Number(decode(stored, target, stored.length, target.length));
      return length < 0 ? -1 : length;
    },
    compress(plain, target) {
      const length = Number(encode(plain, target, plain.length, target.length));
      return length <= 0 ? -1 : length;
    },
  };
}

function systemZstd(library: LibraryHandle): BlockCodec {
  const decode = library.func(
    'size_t ZSTD_decompressDCtx(void *context, uint8_t *target, size_t capacity, ' +
      'const uint8_t *source, size_t bytes)',
  );
  const encode = library.func(
    'size_t ZSTD_compressCCtx(void *context, uint8_t *target, size_t capacity, ' +
      'const uint8_t *source, size_t bytes, int level)',
  );
  const isError = library.func('uint32_t ZSTD_isError(size_t code)');
  // One of each per thread, for the life of the thread: making one costs more than using it.
  const decoder: unknown = library.func('void *ZSTD_createDCtx()')();
  const encoder: unknown = library.func('void *ZSTD_createCCtx()')();
  if (decoder === null || encoder === null) throw new Error('libzstd: out of memory');
  const lengthOf = (code: number | bigint): number => (isError(code) !== 0 ? -1 : Number(code));
  return {
    decompress: (stored, target) =>
      lengthOf(decode(decoder, target, target.length, stored, stored.length)),
    compress: (plain, target) =>
      lengthOf(encode(encoder, target, target.length, plain, plain.length, ZSTD_LEVEL)),
  };
}

const LZ4_PREFIX_BYTES = 4;

const bundledLz4: BlockCodec = {
  decompress(stored, target) {
    // The package wants the decoded size in front and allocates it unseen, so it must be ours.
    const prefixed = Buffer.allocUnsafe(LZ4_PREFIX_BYTES + stored.length);
    prefixed.writeUInt32LE(target.length, 0);
    prefixed.set(stored, LZ4_PREFIX_BYTES);
    try {
      return copyInto(target, uncompressSync(prefixed));
    } catch {
      return -1;
    }
  },
  compress(plain, target) {
    const prefixed = compressSync(Buffer.from(plain.buffer, plain.byteOffset, plain.length));
    return copyInto(target, prefixed.subarray(LZ4_PREFIX_BYTES));
  },
};

/** What zlib's calls give with `info`; the package of Node's types does not say so. */
interface ZstdInfo {
  buffer: Uint8Array;
  /** `bytesWritten`: input that was consumed. */
  engine: { bytesWritten: number };
}

const bundledZstd: BlockCodec = {
  decompress(stored, target) {
    try {
      const options = { maxOutputLength: target.length, info: true };
      const { buffer, engine } = zstdDecompressSync(stored, options) as unknown as ZstdInfo;
      // Node stops behind the first frame; libzstd refuses what follows, and so does this.
      return engine.bytesWritten === stored.length ? copyInto(target, buffer) : -1;
    } catch {
      return -1;
    }
  },
  compress(plain, target) {
    const params = { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL };
    return copyInto(target, zstdCompressSync(plain, { params }));
  },
};

function copyInto(target: Uint8Array, bytes: Uint8Array): number {
  if (bytes.length > target.length) return -1;
  target.set(bytes);
  return bytes.length;
}
