import { access, open, rm, type FileHandle } from 'node:fs/promises';
import { codeOf, messageOf } from '../base/errors.ts';
import { overlaybdTraceLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import type { Stack } from '../image/stack.ts';
import { exportOverlaybdTrace } from '../trace/overlaybd/export.ts';
import { encodeOverlaybdTrace } from '../trace/overlaybd/format.ts';
import type { Trace, TraceImage } from '../trace/trace.ts';

/** Where a trace's checksum is; zero until all of it is there. */
const CHECKSUM_OFFSET = 16;
const CHECKSUM_BYTES = 4;

/**
 * The empty file that `recordTracePath` names, as overlaybd records to it:
 *
 *   open             makes <path>.lock; whoever wants the recording to end removes it
 *   write            header without a checksum, records, header; then removes <path>.lock and makes
 *                    <path>.ok, for which the one who waits looks
 *
 * The file itself is written in place: it may be a bind mount of one file.
 */
export class RecordTraceFile {
  readonly path: string;
  readonly #log: Logger;
  #timer: NodeJS.Timeout | null = null;

  private constructor(path: string, log: Logger) {
    this.path = path;
    this.#log = log;
  }

  /** Neither a lock that is there already nor one that cannot be made keeps a recording from beginning. */
  static async open(path: string, log: Logger): Promise<RecordTraceFile> {
    const file = new RecordTraceFile(path, log);
    // Left by an earlier recording, it would say at once that this one is done.
    await rm(file.#okPath, { force: true }).catch((error: unknown) => file.#warn(error));
    await makeEmpty(file.#lockPath).catch((error: unknown) => file.#warn(error));
    return file;
  }

  /** Calls `onRemoved` once when the lock is gone; looks once a second until `close`. */
  watchLock(onRemoved: () => void): void {
    let isLooking = false;
    const look = async (): Promise<void> => {
      isLooking = true;
      const isGone = await access(this.#lockPath).then(
        () => false,
        (error: unknown) => codeOf(error) === 'ENOENT',
      );
      isLooking = false;
      if (!isGone || this.#timer === null) return;
      this.close();
      onRemoved();
    };
    this.#timer = setInterval(() => {
      if (!isLooking) void look();
    }, overlaybdTraceLimits.lockPollMs);
  }

  /** Writes a recording that has ended, in overlaybd's format. */
  async save(trace: Trace, image: TraceImage, stack: Stack): Promise<void> {
    if (trace.recording.endReason === 'checkpoint') return;
    await this.write(encodeOverlaybdTrace(exportOverlaybdTrace(trace, image, stack).trace));
  }

  /**
   * Writes the trace and says that it is done. When that fails the file is left empty, and what the
   * file system throws is thrown.
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.close();
    const file = await open(this.path, 'r+');
    try {
      await writeAll(file, bytes);
    } catch (error) {
      await file.truncate(0).catch((cause: unknown) => this.#warn(cause));
      throw error;
    } finally {
      await file.close();
    }
    await rm(this.#lockPath, { force: true });
    await makeEmpty(this.#okPath);
  }

  /** Stops looking for the lock. */
  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  get #lockPath(): string {
    return `${this.path}.lock`;
  }

  get #okPath(): string {
    return `${this.path}.ok`;
  }

  #warn(error: unknown): void {
    this.#log.warn({ trace: this.path, code: codeOf(error) }, messageOf(error));
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  const unchecked = Uint8Array.from(bytes);
  unchecked.fill(0, CHECKSUM_OFFSET, CHECKSUM_OFFSET + CHECKSUM_BYTES);
  await file.truncate(0);
  await writeAt(file, unchecked, 0);
  await file.sync();
  await writeAt(
    file,
    bytes.subarray(CHECKSUM_OFFSET, CHECKSUM_OFFSET + CHECKSUM_BYTES),
    CHECKSUM_OFFSET,
  );
  await file.sync();
}

async function writeAt(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}

/** Makes an empty file that is not there yet. */
async function makeEmpty(path: string): Promise<void> {
  await (await open(path, 'wx', 0o644)).close();
}
