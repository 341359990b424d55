import { open, type FileHandle } from 'node:fs/promises';
import { ReplaybdError } from '../../base/errors.ts';
import { upperLimits } from '../../base/limits.ts';
import { LSMT_ENTRY_BYTES } from './format.ts';
import { sidecarFrame, sidecarPath } from './sidecar.ts';
import type { UpperPaths } from './create-upper.ts';
import { upperWriteError } from './upper-errors.ts';
import type { UpperKind } from './upper-map.ts';
import type { UpperLog } from './upper.ts';

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;

/**
 * The file that a writable layer's entries are written to: an append-only layer's index file, entry
 * after entry, or a sparse layer's sidecar, frame after frame. A write that failed is repeated at
 * the same place.
 */
export class LogFile {
  readonly #file: FileHandle;
  readonly #name: string;
  readonly #isFramed: boolean;
  #endBytes: number;
  #entries: number;
  #frames: number;

  private constructor(file: FileHandle, name: string, isFramed: boolean, log: UpperLog) {
    this.#file = file;
    this.#name = name;
    this.#isFramed = isFramed;
    this.#endBytes = log.endBytes;
    this.#entries = log.entries;
    this.#frames = log.frames;
  }

  /** Opens the log for appending and cuts off what a crash left incomplete. */
  static async open(paths: UpperPaths, kind: UpperKind, log: UpperLog): Promise<LogFile> {
    const isFramed = kind === 'sparse';
    const name = isFramed ? sidecarPath(paths.data) : paths.index;
    const file = await open(name, 'r+');
    try {
      await file.truncate(log.endBytes);
      return new LogFile(file, name, isFramed, log);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  get entries(): number {
    return this.#entries;
  }

  /** Appends entries. ERR_UPPER_FULL also when the log may not grow any more; ERR_UPPER_WRITE. */
  async append(words: Uint32Array): Promise<void> {
    const entries = words.length / ENTRY_WORDS;
    const entriesMax = this.#isFramed ? upperLimits.sidecarEntriesMax : upperLimits.logEntriesMax;
    if (this.#entries + entries > entriesMax) {
      throw new ReplaybdError(
        'ERR_UPPER_FULL',
        `${this.#name}: the log may have ${entriesMax} entries. Commit the layer, or open it again.`,
        { errno: 'ENOSPC' },
      );
    }
    const bytes = this.#isFramed
      ? sidecarFrame(words, this.#frames)
      : new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    try {
      for (let done = 0; done < bytes.length;) {
        const position = this.#endBytes + done;
        done += (await this.#file.write(bytes, done, bytes.length - done, position)).bytesWritten;
      }
    } catch (error) {
      throw upperWriteError(this.#name, `${entries} entries`, error);
    }
    this.#endBytes += bytes.length;
    this.#entries += entries;
    this.#frames += 1;
  }

  async sync(): Promise<void> {
    await this.#file.datasync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
