import { parentPort } from 'node:worker_threads';
import { messageOf } from '../../base/errors.ts';
import { fuseLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { SharedDevice } from '../../device/block-device.ts';
import { CachedReader } from '../../device/cached-reader.ts';
import { TapProducer } from '../../device/tap.ts';
import { StopGuard } from '../../../native/stop-guard.ts';
import { receive, send } from './channel.ts';
import { RemapWatch, type RemapLine } from './remap.ts';
import {
  EINVAL,
  ENOSPC,
  ENOSYS,
  EOPNOTSUPP,
  EPROTO,
  EROFS,
  FALLOCATE_KEEP_SIZE,
  FALLOCATE_PUNCH_HOLE,
  FALLOCATE_ZERO_RANGE,
  FuseReply,
  FuseRequest,
  opcodes,
  REQUEST_HEADER_BYTES,
  requestBufferBytes,
  WRITE_DATA_AT,
  type FuseFile,
} from './protocol.ts';

// A thread that takes requests from the kernel. It answers what it can at once - attributes, reads of
// local bytes, writes to an upper that it shares - hands everything else to the main thread, and never
// waits for it.
//
// What changes the device does so in whole sectors: a loop device sends nothing else, and others who
// write the file get EINVAL, as from a disk that is written with O_DIRECT.

/** What the thread is told to do. */
export interface FuseWorkerData {
  fd: number;
  file: FuseFile;
  /** The device's shared data, or the URL of a module that exports another `CachedReader`. */
  reader: { module: null; device: SharedDevice } | { module: string; data: unknown };
  /** This thread's ring of the tap. */
  ringIndex: number;
  /** Reads and writes are tried here first. Off where writes happen unseen by this thread. */
  triesFirst: boolean;
  /** The main thread can tell data from holes. */
  seeksHoles: boolean;
  /** How the thread learns of new maps; those of a reader module do not change. */
  remap: RemapLine;
}

/** What a reader module's `CachedReader` offers. */
export interface WorkerReader {
  readCached(offset: number, into: Uint8Array): boolean;
  /** Takes `data` at once, or gives false and leaves it to the main thread. */
  write?(offset: number, data: Uint8Array): boolean;
}

interface ReaderModule {
  CachedReader: new (data: unknown, ringIndex: number) => WorkerReader;
}

/** Requests for the main thread, which replies to the kernel by itself. */
export type FuseTask =
  /** `tried`: this thread found that not all bytes are local, and the tap knows. */
  | { kind: 'read'; unique: number; offset: number; size: number; tried: boolean }
  | { kind: 'write'; unique: number; offset: number; data: Uint8Array }
  | { kind: 'flush'; unique: number }
  | { kind: 'discard' | 'writeZeroes'; unique: number; offset: number; length: number }
  | { kind: 'seek'; unique: number; offset: number; whence: number };

export type WorkerMessage =
  | FuseTask
  /** The kernel has agreed on the protocol, or why it has not. */
  | { kind: 'ready'; refusal: string | null }
  /** The reader threw; what was asked of it goes to the main thread. */
  | { kind: 'fault'; message: string };

class FuseWorker {
  readonly #data: FuseWorkerData;
  readonly #watch: RemapWatch;
  readonly #request: FuseRequest;
  readonly #reply = new FuseReply(fuseLimits.readBytesMax);
  #reader: WorkerReader;
  #file: FuseFile;

  constructor(data: FuseWorkerData, reader: WorkerReader) {
    this.#data = data;
    this.#reader = reader;
    this.#file = data.file;
    this.#watch = new RemapWatch(data.remap);
    this.#request = new FuseRequest(Buffer.allocUnsafeSlow(requestBufferBytes(data.file)));
  }

  /** Serves until the connection ends. */
  serve(): void {
    const { bytes } = this.#request;
    for (let length = receive(this.#data.fd, bytes); length > 0;) {
      if (length < REQUEST_HEADER_BYTES || length !== this.#request.length) {
        throw new Error(`fuse: request of ${this.#request.length} bytes, ${length} were read`);
      }
      const shared = this.#watch.enter();
      if (shared !== null) this.#remap(shared);
      if (this.#request.opcode === opcodes.read) this.#read();
      else this.#serveOther();
      this.#watch.leave();
      length = receive(this.#data.fd, bytes);
    }
  }

  /** A writable layer's map tells the size of its device. */
  #remap(shared: SharedDevice): void {
    this.#reader = sharedReader(shared, this.#data.ringIndex);
    const sizeBytes = shared.upper?.virtualSizeBytes ?? this.#file.sizeBytes;
    this.#file = { ...this.#file, sizeBytes };
  }

  #read(): void {
    const { unique, offset } = this.#request;
    const { sizeBytes } = this.#file;
    const length = Math.min(this.#request.size, fuseLimits.readBytesMax, sizeBytes - offset);
    if (length <= 0) return this.#finish(unique, 0);
    const skipped = offset % SECTOR_BYTES;
    const into = this.#reply.payload(Math.ceil((skipped + length) / SECTOR_BYTES));
    const tried = this.#data.triesFirst;
    if (!tried || !this.#readCached(offset - skipped, into)) {
      return this.#handOver({ kind: 'read', unique, offset, size: length, tried });
    }
    if (skipped > 0) this.#reply.shift(skipped, length);
    this.#finish(unique, length);
  }

  #readCached(offset: number, into: Uint8Array): boolean {
    try {
      return this.#reader.readCached(offset, into);
    } catch (error) {
      return this.#fault(error);
    }
  }

  #writeShared(offset: number, data: Uint8Array): boolean {
    try {
      return this.#reader.write?.(offset, data) ?? false;
    } catch (error) {
      return this.#fault(error);
    }
  }

  #fault(error: unknown): false {
    this.#post({ kind: 'fault', message: messageOf(error) });
    return false;
  }

  #serveOther(): void {
    const { unique } = this.#request;
    const file = this.#file;
    switch (this.#request.opcode) {
      case opcodes.getattr:
        return this.#finish(unique, this.#reply.attributes(file));
      case opcodes.setattr:
        return this.#setAttributes(unique);
      case opcodes.open:
        if (file.readOnly && this.#request.opensForWriting) return this.#refuse(unique, EROFS);
        return this.#finish(unique, this.#reply.open(file));
      case opcodes.statfs:
        return this.#finish(unique, this.#reply.statfs(file));
      case opcodes.write:
        return this.#write(unique);
      case opcodes.fallocate:
        return this.#fallocate(unique);
      case opcodes.fsync:
      case opcodes.flush:
        if (file.readOnly) return this.#finish(unique, 0);
        return this.#handOver({ kind: 'flush', unique });
      case opcodes.lseek:
        return this.#seek(unique);
      case opcodes.release:
      case opcodes.destroy:
        return this.#finish(unique, 0);
      case opcodes.interrupt:
      case opcodes.forget:
      case opcodes.batchForget:
        // The kernel expects no reply. An interrupted read ends as any other: the device may share
        // its fetch with others, and loop devices do not interrupt.
        return;
      case opcodes.init:
        return this.#initialise(unique);
      default:
        return this.#refuse(unique, ENOSYS);
    }
  }

  #initialise(unique: number): void {
    const length = this.#reply.init(this.#request, this.#file);
    if (length === null) {
      this.#refuse(unique, EPROTO);
      const refusal =
        'the kernel speaks a FUSE protocol before 7.28; Linux 4.20 or later is needed';
      return this.#post({ kind: 'ready', refusal });
    }
    this.#finish(unique, length);
    this.#post({ kind: 'ready', refusal: null });
  }

  /** A device has no times, owner or mode to change, and its size is not the kernel's to change. */
  #setAttributes(unique: number): void {
    const file = this.#file;
    const { newSize } = this.#request;
    if (file.readOnly) return this.#refuse(unique, EROFS);
    if (newSize !== null && newSize !== file.sizeBytes) return this.#refuse(unique, EINVAL);
    this.#finish(unique, this.#reply.attributes(file));
  }

  #write(unique: number): void {
    const { offset, size, bytes } = this.#request;
    const refusal = this.#refusalOfChange(offset, size);
    if (refusal !== 0) return this.#refuse(unique, refusal);
    const data = bytes.subarray(WRITE_DATA_AT, WRITE_DATA_AT + size);
    if (this.#data.triesFirst && this.#writeShared(offset, data)) {
      return this.#finish(unique, this.#reply.written(size));
    }
    // A copy: the buffer takes the next request while the main thread writes this one.
    const copy = new Uint8Array(data);
    this.#handOver({ kind: 'write', unique, offset, data: copy }, [copy.buffer]);
  }

  #fallocate(unique: number): void {
    const { offset, fallocateLength: length, fallocateMode: mode } = this.#request;
    const refusal = this.#refusalOfChange(offset, length);
    if (refusal !== 0) return this.#refuse(unique, refusal);
    switch (mode & ~FALLOCATE_KEEP_SIZE) {
      case FALLOCATE_PUNCH_HOLE:
        return this.#handOver({ kind: 'discard', unique, offset, length });
      case FALLOCATE_ZERO_RANGE:
        return this.#handOver({ kind: 'writeZeroes', unique, offset, length });
      default:
        return this.#refuse(unique, EOPNOTSUPP);
    }
  }

  #seek(unique: number): void {
    if (!this.#data.seeksHoles) return this.#refuse(unique, ENOSYS);
    const { offset, whence } = this.#request;
    this.#handOver({ kind: 'seek', unique, offset, whence });
  }

  /** The errno for a change of this range, 0 when it may be made. */
  #refusalOfChange(offset: number, length: number): number {
    const { sizeBytes, readOnly } = this.#file;
    if (readOnly) return EROFS;
    if (offset % SECTOR_BYTES !== 0 || length % SECTOR_BYTES !== 0) return EINVAL;
    return offset + length > sizeBytes ? ENOSPC : 0;
  }

  #handOver(task: FuseTask, transfer: ArrayBuffer[] = []): void {
    parentPort?.postMessage(task, transfer);
  }

  #post(message: WorkerMessage): void {
    parentPort?.postMessage(message);
  }

  #finish(unique: number, payloadBytes: number): void {
    send(this.#data.fd, this.#reply, this.#reply.finish(unique, payloadBytes));
  }

  #refuse(unique: number, error: number): void {
    send(this.#data.fd, this.#reply, this.#reply.finish(unique, 0, error));
  }
}

const guard = new StopGuard();

/** A thread may be started before there is a device for it; it is told null when there will be none. */
parentPort?.once('message', (data: FuseWorkerData | null) => {
  if (data !== null && guard.enter()) void start(data);
});
guard.leave();

async function start(data: FuseWorkerData): Promise<void> {
  try {
    const reader = await makeReader(data);
    // All of it is guarded: a process that ends without closing aborts the connection first.
    new FuseWorker(data, reader).serve();
  } finally {
    guard.leave();
  }
}

async function makeReader({ reader, ringIndex }: FuseWorkerData): Promise<WorkerReader> {
  if (reader.module === null) return sharedReader(reader.device, ringIndex);
  const module = (await import(reader.module)) as ReaderModule;
  return new module.CachedReader(reader.data, ringIndex);
}

/** Reads hits, and writes to the upper where the device has one, by the device's shared maps. */
function sharedReader(shared: SharedDevice, ringIndex: number): WorkerReader {
  const reader = new CachedReader(shared, ringIndex);
  const { upper } = reader;
  if (upper === null) return reader;
  const tap = new TapProducer(shared.tap, ringIndex);
  return {
    readCached: (offset, into) => reader.readCached(offset, into),
    write: (offset, data) => {
      const isDone = !reader.isRetired && upper.write(offset, data);
      if (isDone) tap.countWrite(data.length);
      return isDone;
    },
  };
}
