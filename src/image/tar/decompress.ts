import { createGunzip, createZstdDecompress, type Gunzip, type ZstdDecompress } from 'node:zlib';
import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';

export type TarCompression = 'none' | 'gzip' | 'zstd';

/** What a decoder gives at a time; the default would be 16 KiB. */
const OUTPUT_BYTES = 256 * 1024;
const MAGIC_BYTES = 4;

/**
 * The bytes of a tar that may be compressed, with gzip or zstd, which its first bytes tell where
 * nothing else does. Several members or frames after each other are one stream, as the formats have
 * it. Errors: ERR_TAR_COMPRESSION; the input's.
 */
export async function* decompressed(
  input: AsyncIterable<Uint8Array>,
  stated?: TarCompression,
): AsyncGenerator<Uint8Array, void> {
  const source = input[Symbol.asyncIterator]();
  try {
    const first = await readFirst(source);
    const compression = stated ?? compressionOf(first);
    const chunks = continued(first, source);
    if (compression === 'none') yield* chunks;
    else yield* decoded(compression, chunks);
  } finally {
    await source.return?.();
  }
}

/** Errors: ERR_TAR_COMPRESSION for other compressions than ours. */
function compressionOf(first: Buffer): TarCompression {
  const begins = (...bytes: number[]) => bytes.every((byte, index) => first[index] === byte);
  if (begins(0x1f, 0x8b)) return 'gzip';
  if (begins(0x28, 0xb5, 0x2f, 0xfd)) return 'zstd';
  // A frame that zstd skips may come first.
  if (begins(0x50 | (first[0] ?? 0), 0x2a, 0x4d, 0x18) && (first[0] ?? 0) >= 0x50) return 'zstd';
  const other = begins(0x42, 0x5a, 0x68) ? 'bzip2' : begins(0xfd, 0x37, 0x7a, 0x58) ? 'xz' : null;
  if (other === null) return 'none';
  throw new ReplaybdError(
    'ERR_TAR_COMPRESSION',
    `tar: compressed with ${other}; expected a plain tar, gzip or zstd. Decompress it first.`,
  );
}

/** As many bytes as tell the compression, or all there are. */
async function readFirst(source: AsyncIterator<Uint8Array>): Promise<Buffer> {
  let first: Buffer = Buffer.alloc(0);
  while (first.length < MAGIC_BYTES) {
    const next = await source.next();
    if (next.done === true) break;
    first = first.length === 0 ? toBuffer(next.value) : Buffer.concat([first, next.value]);
  }
  return first;
}

async function* continued(
  first: Buffer,
  source: AsyncIterator<Uint8Array>,
): AsyncGenerator<Buffer, void> {
  if (first.length > 0) yield first;
  for (let next = await source.next(); next.done !== true; next = await source.next()) {
    yield toBuffer(next.value);
  }
}

/** One decoder after the other: Node's zstd ends with its first frame. */
async function* decoded(
  compression: 'gzip' | 'zstd',
  chunks: AsyncGenerator<Buffer, void>,
): AsyncGenerator<Uint8Array, void> {
  let rest: Buffer = Buffer.alloc(0);
  for (;;) {
    if (rest.length === 0) {
      const next = await chunks.next();
      if (next.done === true) return;
      rest = next.value;
      continue;
    }
    const decoder =
      compression === 'gzip'
        ? createGunzip({ chunkSize: OUTPUT_BYTES })
        : createZstdDecompress({ chunkSize: OUTPUT_BYTES });
    const feeding = feed(decoder, rest, chunks);
    // What the input throws ends the decoder, and is thrown once that was read.
    feeding.catch((error: unknown) => decoder.destroy(error instanceof Error ? error : undefined));
    try {
      for await (const bytes of decoder) yield bytes as Buffer;
    } catch (error) {
      if (!codeOf(error).startsWith('Z_') && !codeOf(error).startsWith('ZSTD_')) throw error;
      throw new ReplaybdError(
        'ERR_TAR_COMPRESSION',
        `tar: its ${compression} stream is damaged or cut off: ${messageOf(error)}.`,
        { cause: error },
      );
    } finally {
      decoder.destroy();
    }
    rest = await feeding;
  }
}

/** Gives a decoder its input until it has enough; what is left of the last chunk then. */
async function feed(
  decoder: Gunzip | ZstdDecompress,
  first: Buffer,
  chunks: AsyncGenerator<Buffer, void>,
): Promise<Buffer> {
  let chunk = first;
  for (;;) {
    const before = decoder.bytesWritten;
    await write(decoder, chunk);
    const taken = decoder.bytesWritten - before;
    if (decoder.destroyed || taken < chunk.length) return chunk.subarray(taken);
    const next = await chunks.next();
    if (next.done === true) {
      decoder.end();
      return Buffer.alloc(0);
    }
    chunk = next.value;
  }
}

/** Resolves when the decoder has taken the chunk, or ended, or failed. */
async function write(decoder: Gunzip | ZstdDecompress, chunk: Buffer): Promise<void> {
  await new Promise<void>((resolve) => {
    const done = () => {
      decoder.off('end', done);
      decoder.off('close', done);
      resolve();
    };
    decoder.once('end', done);
    decoder.once('close', done);
    decoder.write(chunk, done);
  });
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
}
