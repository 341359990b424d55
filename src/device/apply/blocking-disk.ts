import type { MessagePort } from 'node:worker_threads';
import type { Ext2Image } from '../../../native/ext2fs-io.ts';
import { messageOf, ReplaybdError, type ErrnoName, type ErrorCode } from '../../base/errors.ts';
import type { SharedDevice } from '../block-device.ts';
import { CachedReader } from '../cached-reader.ts';

/** A device as a thread gets it that waits for answers. */
export interface DiskLine {
  shared: SharedDevice;
  sizeBytes: number;
  /** Words of `states`. */
  state: SharedArrayBuffer;
  /** What is read or written, or an error as JSON; DISK_LINE_BYTES. */
  data: SharedArrayBuffer;
}

/** What the thread cannot do alone. The bytes are in `DiskLine.data`. */
export interface DiskRequest {
  kind: 'read' | 'write';
  offset: number;
  length: number;
}

export interface DiskFailure {
  code: ErrorCode;
  message: string;
  errno: ErrnoName;
}

/** An error as it travels between threads. */
export function diskFailureOf(error: unknown): DiskFailure {
  if (error instanceof ReplaybdError) {
    return { code: error.code, message: error.message, errno: error.errno };
  }
  return { code: 'ERR_APPLY', message: messageOf(error), errno: 'EIO' };
}

/** Largest piece that is asked for. */
export const DISK_LINE_BYTES = 1024 * 1024;

/** Word 0: what became of the request. Word 1: bytes of the error. */
export const diskStates = { waiting: 0, done: 1, failed: 2 } as const;

/**
 * A writable device for code that cannot wait for promises, on a thread of its own: local bytes are
 * read and written right here, everything else is asked of the main thread, and waited for.
 */
export class BlockingDisk implements Ext2Image {
  readonly sizeBytes: number;
  readonly #reader: CachedReader;
  readonly #state: Int32Array;
  readonly #data: Buffer;
  readonly #port: MessagePort;

  constructor(line: DiskLine, port: MessagePort) {
    this.sizeBytes = line.sizeBytes;
    this.#reader = new CachedReader(line.shared, 0);
    this.#state = new Int32Array(line.state);
    this.#data = Buffer.from(line.data);
    this.#port = port;
  }

  read(position: number, into: Buffer): void {
    for (let done = 0; done < into.length; done += DISK_LINE_BYTES) {
      const piece = into.subarray(done, done + DISK_LINE_BYTES);
      if (this.#reader.readUntapped(position + done, piece)) continue;
      this.#ask({ kind: 'read', offset: position + done, length: piece.length });
      this.#data.copy(piece, 0, 0, piece.length);
    }
  }

  write(position: number, bytes: Buffer): void {
    for (let done = 0; done < bytes.length; done += DISK_LINE_BYTES) {
      const piece = bytes.subarray(done, done + DISK_LINE_BYTES);
      if (this.#reader.upper?.write(position + done, piece) === true) continue;
      piece.copy(this.#data);
      this.#ask({ kind: 'write', offset: position + done, length: piece.length });
    }
  }

  #ask(request: DiskRequest): void {
    Atomics.store(this.#state, 0, diskStates.waiting);
    this.#port.postMessage(request);
    Atomics.wait(this.#state, 0, diskStates.waiting);
    if (Atomics.load(this.#state, 0) === diskStates.done) return;
    const text = this.#data.toString('utf8', 0, this.#state[1]);
    const { code, message, errno } = JSON.parse(text) as DiskFailure;
    throw new ReplaybdError(code, message, { errno });
  }
}
