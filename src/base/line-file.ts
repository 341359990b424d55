import { writeSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { systemClock, type Clock } from './clock.ts';
import { messageOf } from './errors.ts';
import { lineFileLimits } from './limits.ts';

export interface LineFileOptions {
  clock?: Clock;
  /** Told when the file cannot be written or opened, once until it can be again. */
  onTrouble?: (message: string) => void;
  /** The line that stands where others were dropped. */
  droppedLine?: (count: number) => string;
}

/**
 * A file that lines are appended to without ever waiting for it: they queue in memory, up to a
 * limit, and are dropped and counted beyond that. While the disk refuses them they are tried again.
 *
 *   write --> queue (bounded) --> one write(2) under way --> file
 *                                     reopen: before the next one
 */
export class LineFile {
  readonly path: string;
  readonly #clock: Clock;
  readonly #onTrouble: (message: string) => void;
  readonly #droppedLine: (count: number) => string;
  readonly #closing = new AbortController();
  #handle: FileHandle | null = null;
  #mustOpen = true;
  #queue: string[] = [];
  /** Of the queue and of what is being written. */
  #waitingBytes = 0;
  #droppedCount = 0;
  #isTroubled = false;
  #pump: Promise<void> | null = null;

  constructor(path: string, options: LineFileOptions = {}) {
    this.path = path;
    this.#clock = options.clock ?? systemClock;
    this.#onTrouble = options.onTrouble ?? (() => undefined);
    this.#droppedLine = options.droppedLine ?? ((count) => `${count} lines were dropped\n`);
  }

  /** `line` ends with its newline. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line);
    const isFull = this.#waitingBytes + bytes > lineFileLimits.waitingBytesMax;
    if (isFull || this.#closing.signal.aborted) {
      this.#droppedCount += 1;
      return;
    }
    this.#queue.push(line);
    this.#waitingBytes += bytes;
    this.#start();
  }

  /** Opens the path again, because the file there was renamed. Until that works, the old one is used. */
  reopen(): void {
    this.#mustOpen = true;
    this.#start();
  }

  /** Writes what waits and is not being written, for a process that is about to die. */
  flushSync(): void {
    if (this.#handle === null || this.#queue.length === 0) return;
    const lines = this.#takeQueue();
    this.#waitingBytes -= lines.length;
    try {
      writeSync(this.#handle.fd, lines);
    } catch {
      this.#droppedCount += 1;
    }
  }

  /** Writes what waits, for a bounded time, unless the file refuses it now; and closes the file. */
  async close(): Promise<void> {
    const late = new AbortController();
    const limit = this.#clock.sleep(lineFileLimits.closeMsMax, late.signal).catch(() => undefined);
    if (!this.#isTroubled) await Promise.race([this.#pump, limit]);
    late.abort();
    this.#closing.abort();
    await this.#pump;
    await this.#handle?.close();
    this.#handle = null;
  }

  #start(): void {
    this.#pump ??= this.#run().finally(() => {
      this.#pump = null;
      // A line may have come after the last look at the queue.
      if (this.#queue.length > 0 && !this.#closing.signal.aborted) this.#start();
    });
  }

  /** Until nothing waits. One at a time. */
  async #run(): Promise<void> {
    let rest: Buffer = Buffer.alloc(0);
    while (rest.length > 0 || this.#queue.length > 0 || this.#mustOpen) {
      try {
        const handle = await this.#opened();
        if (rest.length === 0) rest = this.#takeQueue();
        const { bytesWritten } = await handle.write(rest);
        rest = rest.subarray(bytesWritten);
        this.#waitingBytes -= bytesWritten;
        this.#isTroubled = false;
      } catch (error) {
        this.#tellTrouble(error);
        const { signal } = this.#closing;
        await this.#clock.sleep(lineFileLimits.retryMs, signal).catch(() => undefined);
        if (signal.aborted) return;
      }
    }
  }

  async #opened(): Promise<FileHandle> {
    const previous = this.#handle;
    if (!this.#mustOpen && previous !== null) return previous;
    this.#mustOpen = false;
    try {
      this.#handle = await open(this.path, 'a', 0o640);
    } catch (error) {
      this.#mustOpen = previous === null;
      if (previous === null) throw error;
      this.#tellTrouble(error);
      return previous;
    }
    await previous?.close();
    return this.#handle;
  }

  #takeQueue(): Buffer {
    const dropped = this.#droppedCount;
    this.#droppedCount = 0;
    const notice = dropped === 0 ? '' : this.#droppedLine(dropped);
    // The notice stands after the lines that were queued when it became full.
    const bytes = Buffer.from(this.#queue.join('') + notice);
    this.#queue = [];
    this.#waitingBytes += Buffer.byteLength(notice);
    return bytes;
  }

  #tellTrouble(error: unknown): void {
    if (this.#isTroubled) return;
    this.#isTroubled = true;
    this.#onTrouble(`${this.path}: cannot be written: ${messageOf(error)}`);
  }
}
