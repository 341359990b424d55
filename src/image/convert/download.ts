import { createHash } from 'node:crypto';
import { read, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { convertLimits } from '../../base/limits.ts';
import type { RangeSource } from '../../blob/blob.ts';
import { isRetryable, RegistryError } from '../../registry/errors.ts';
import { openScratchFile, type ScratchFile } from '../build/scratch-file.ts';
import { sourceError } from './source.ts';

const readAt = promisify(read);
const READ_BYTES = 256 * 1024;
const BACKOFF_MS = 250;

export interface DownloadOptions {
  ranges: RangeSource;
  digest: string;
  sizeBytes: number;
  /** Where the bytes are kept meanwhile, in a file without a name. */
  workFolder: string;
  /** Told of bytes that arrived. */
  onBytes?: ((bytes: number) => void) | undefined;
  signal: AbortSignal;
}

/**
 * A blob on its way to disk, which can be read while it arrives: what is slow at the moment, network
 * or reader, does not hold up the other. One that breaks off goes on where it was. Its last bytes
 * are only given once the whole has the right digest.
 */
export class Download implements AsyncDisposable {
  readonly #options: DownloadOptions;
  readonly #file: ScratchFile;
  readonly #hash = createHash('sha256');
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #receivedBytes = 0;
  #isVerified = false;
  #failure: { error: unknown } | null = null;
  #more = Promise.withResolvers<void>();
  #reading: Promise<unknown> = Promise.resolve();

  /** Begins at once. */
  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#file = openScratchFile(options.workFolder, `download-${crypto.randomUUID()}`);
    this.#running = this.#run();
  }

  /**
   * The bytes in order. Errors: those of the registry client; ERR_CONVERT_DIGEST before the end of
   * a blob that is another one.
   */
  async *bytes(): AsyncGenerator<Buffer> {
    const { sizeBytes } = this.#options;
    let position = 0;
    for (;;) {
      if (this.#failure !== null) throw this.#failure.error;
      const isOver = position === sizeBytes;
      if (isOver && this.#isVerified) return;
      const readable = Math.min(this.#receivedBytes, this.#isVerified ? sizeBytes : sizeBytes - 1);
      const length = Math.min(READ_BYTES, readable - position);
      if (length <= 0) {
        await this.#more.promise;
        continue;
      }
      const buffer = Buffer.allocUnsafe(length);
      const reading = readAt(this.#file.fd, buffer, 0, length, position);
      this.#reading = reading;
      const { bytesRead } = await reading;
      position += bytesRead;
      yield buffer.subarray(0, bytesRead);
    }
  }

  /** Resolves when all bytes are there and right; rejects as `bytes` does. */
  async verified(): Promise<void> {
    await this.#running;
    if (this.#failure !== null) throw this.#failure.error;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled([this.#running, this.#reading]);
    this.#file[Symbol.dispose]();
    await this.#options.ranges.close();
  }

  async #run(): Promise<void> {
    try {
      await this.#fetchAll();
      this.#verify();
    } catch (error) {
      this.#failure = { error };
    }
    this.#announce();
  }

  async #fetchAll(): Promise<void> {
    const { ranges, sizeBytes } = this.#options;
    const signal = AbortSignal.any([this.#options.signal, this.#stop.signal]);
    const onData = (chunk: Uint8Array) => this.#keep(chunk);
    for (let attempt = 1; this.#receivedBytes < sizeBytes; attempt += 1) {
      const from = this.#receivedBytes;
      try {
        await ranges.fetch(from, sizeBytes - from, { lane: 'prefetch', signal, onData });
      } catch (error) {
        signal.throwIfAborted();
        if (!isRetryable(error) || attempt === convertLimits.downloadAttemptsMax) throw error;
        const askedMs = error instanceof RegistryError ? error.retryAfterMs : 0;
        await sleep(Math.max(askedMs, BACKOFF_MS * 2 ** attempt), undefined, { signal });
      }
    }
  }

  /** To disk at once: a slow reader must not make the process keep the blob in memory. */
  #keep(chunk: Uint8Array): void {
    for (let done = 0; done < chunk.length;) {
      const position = this.#receivedBytes + done;
      done += writeSync(this.#file.fd, chunk, done, chunk.length - done, position);
    }
    this.#hash.update(chunk);
    this.#receivedBytes += chunk.length;
    this.#options.onBytes?.(chunk.length);
    this.#announce();
  }

  #verify(): void {
    const { ranges, digest } = this.#options;
    const found = `sha256:${this.#hash.digest('hex')}`;
    if (found !== digest) {
      throw sourceError(
        'ERR_CONVERT_DIGEST',
        `${ranges.name}: expected ${digest}, found ${found}.`,
      );
    }
    this.#isVerified = true;
  }

  #announce(): void {
    this.#more.resolve();
    this.#more = Promise.withResolvers();
  }
}
