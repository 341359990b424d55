import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { PassThrough, pipeline, Readable } from 'node:stream';
import { codeOf, messageOf } from '../../base/errors.ts';
import { convertLimits } from '../../base/limits.ts';
import { decompressed } from '../tar/decompress.ts';
import { Download } from './download.ts';
import type { LayerCompression } from './media-types.ts';
import { sourceError, type LayerInput } from './source.ts';

const CHUNK_BYTES = 256 * 1024;

export interface LayerStreamOptions {
  /** For messages. */
  name: string;
  input: LayerInput;
  compression: LayerCompression;
  /** Digest of the uncompressed tar. */
  diffId: string;
  /** Where a download is kept meanwhile. */
  workFolder: string;
  /** Told of stored bytes that were read. */
  onBytes?: ((bytes: number) => void) | undefined;
  signal: AbortSignal;
}

/**
 * A layer's tar, uncompressed. Downloading, and decompressing a little of it, begin at once, so that
 * the next layer is ready when the one before is done.
 */
export class LayerStream implements AsyncDisposable {
  readonly #options: LayerStreamOptions;
  readonly #download: Download | null;
  readonly #plain: Readable;

  constructor(options: LayerStreamOptions) {
    const { input, compression, workFolder, onBytes, signal } = options;
    this.#options = options;
    this.#download =
      input.kind === 'remote' ? new Download({ ...input, workFolder, onBytes, signal }) : null;
    const stored = this.#download?.bytes() ?? fileBytes(options);
    this.#plain = readAhead(decompressed(stored, compression));
  }

  /**
   * The tar's bytes. Their end is only reached when the blob's digest and size and the tar's digest
   * are right. Errors: ERR_CONVERT_DIGEST, ERR_CONVERT_DIFF_ID, ERR_CONVERT_COMPRESSION,
   * ERR_CONVERT_SIZE, and those of reading.
   */
  async *tar(): AsyncGenerator<Uint8Array> {
    const { name, diffId } = this.#options;
    const hash = createHash('sha256');
    let bytes = 0;
    try {
      for await (const chunk of this.#plain as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        if (bytes > convertLimits.layerBytesMax) throw this.#tooLong();
        hash.update(chunk);
        yield chunk;
      }
    } catch (error) {
      throw codeOf(error) === 'ERR_TAR_COMPRESSION' ? this.#undecodable(error) : error;
    }
    // A decompressor may be done before the blob is.
    await this.#download?.verified();
    const found = `sha256:${hash.digest('hex')}`;
    if (found === diffId) return;
    throw sourceError(
      'ERR_CONVERT_DIFF_ID',
      `${name}: expected a tar of ${diffId}, found ${found}. ` +
        "The image's configuration does not belong to its layers.",
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#plain.destroy();
    await this.#download?.[Symbol.asyncDispose]();
  }

  #tooLong() {
    const { layerBytesMax } = convertLimits;
    const problem = `expected a tar of at most ${layerBytesMax} bytes, found a longer one`;
    return sourceError('ERR_CONVERT_SIZE', `${this.#options.name}: ${problem}.`);
  }

  #undecodable(error: unknown) {
    const { name, compression } = this.#options;
    return sourceError(
      'ERR_CONVERT_COMPRESSION',
      `${name}: expected ${compression} data, found something else: ${messageOf(error)}.`,
      error,
    );
  }
}

/** Reads ahead of the reader, by a bounded number of bytes. */
function readAhead(bytes: AsyncIterable<Uint8Array>): Readable {
  const ahead = new PassThrough({ highWaterMark: convertLimits.readAheadBytes });
  // A failure destroys the last stream with the error, where the reader meets it.
  const ignore = () => undefined;
  ahead.on('error', ignore);
  return pipeline(Readable.from(bytes, { objectMode: false }), ahead, ignore);
}

/** The bytes of a part of a file, after all of them were held against their digest. */
async function* fileBytes({ input, name, onBytes }: LayerStreamOptions): AsyncGenerator<Buffer> {
  if (input.kind !== 'file' || input.sizeBytes === 0) return;
  const { path, offset, sizeBytes, digest } = input;
  const part = { start: offset, end: offset + sizeBytes - 1, highWaterMark: CHUNK_BYTES };
  if (digest !== null) {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(path, part)) hash.update(chunk as Buffer);
    const found = `sha256:${hash.digest('hex')}`;
    if (found !== digest) {
      const problem = `expected ${digest}, found ${found}. The file is damaged`;
      throw sourceError('ERR_CONVERT_DIGEST', `${name}: ${problem}.`);
    }
  }
  for await (const chunk of createReadStream(path, part)) {
    const bytes = chunk as Buffer;
    onBytes?.(bytes.length);
    yield bytes;
  }
}
