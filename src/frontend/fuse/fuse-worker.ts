import { parentPort } from 'node:worker_threads';
import { messageOf } from '../../base/errors.ts';
import { fuseLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { SharedDevice } from '../../device/block-device.ts';
import { CachedReader } from '../../device/cached-reader.ts';
import { receive, send } from './channel.ts';
import {
  EINVAL,
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

// A thread that takes requests from the kernel. It answers what it can at once - attributes, and
// reads of local bytes - hands everything else to the main thread, and never waits for it.

/** What the thread is told to do. */
export interface FuseWorkerData {
  fd: number;
  file: FuseFile;
  /** The device's shared data, or the URL of a module that exports another `CachedReader`. */
  reader: { module: null; device: SharedDevice } | { module: string; data: unknown };
  /** This thread's ring of the tap. */
  ringIndex: number;
  /** Reads are tried here first. Off for writable devices, whose data changes under the reader. */
  servesHits: boolean;
  /** The main thread can tell data from holes. */
  seeksHoles: boolean;
}

/** What a reader module's `CachedReader` offers. */
export interface WorkerReader {
  readCached(offset: number, into: Uint8Array): boolean;
}

interface ReaderModule {
  CachedReader: new (data: unknown, ringIndex: number) => WorkerReader;
}

/** Requests for the main thread, which replies to the kernel by itself. */
export type FuseTask =
  | { kind: 'read'; unique: number; offset: number; size: number }
  | { kind: 'write'; unique: number; offset: number; data: Uint8Array }
  | { kind: 'flush'; unique: number }
  | { kind: 'discard' | 'writeZeroes'; unique: number; offset: number; length: number }
  | { kind: 'seek'; unique: number; offset: number; whence: number };

export type WorkerMessage =
  | FuseTask
  /** The kernel has agreed on the protocol, or why it has not. */
  | { kind: 'ready'; refusal: string | null }
  /** The reader threw; the read goes to the main thread as a miss. */
  | { kind: 'fault'; message: string };

class FuseWorker {
  readonly #data: FuseWorkerData;
  readonly #reader: WorkerReader;
  readonly #request: FuseRequest;
  readonly #reply = new FuseReply(fuseLimits.readBytesMax);

  constructor(data: FuseWorkerData, reader: WorkerReader) {
    this.#data = data;
    this.#reader = reader;
    this.#request = new FuseRequest(Buffer.allocUnsafeSlow(requestBufferBytes(data.file)));
  }

  /** Serves until the connection ends. */
  serve(): void {
    const { bytes } = this.#request;
    for (let length = receive(this.#data.fd, bytes); length > 0;) {
      if (length < REQUEST_HEADER_BYTES || length !== this.#request.length) {
        throw new Error(`fuse: request of ${this.#request.length} bytes, ${length} were read`);
      }
      if (this.#request.opcode === opcodes.read) this.#read();
      else this.#serveOther();
      length = receive(this.#data.fd, bytes);
    }
  }

  #read(): void {
    const { unique, offset } = this.#request;
    const { sizeBytes } = this.#data.file;
    const length = Math.min(this.#request.size, fuseLimits.readBytesMax, sizeBytes - offset);
    if (length <= 0) return this.#finish(unique, 0);
    const skipped = offset % SECTOR_BYTES;
    const into = this.#reply.payload(Math.ceil((skipped + length) / SECTOR_BYTES));
    if (!this.#data.servesHits || !this.#readCached(offset - skipped, into)) {
      return this.#handOver({ kind: 'read', unique, offset, size: length });
    }
    if (skipped > 0) this.#reply.shift(skipped, length);
    this.#finish(unique, length);
  }

  #readCached(offset: number, into: Uint8Array): boolean {
    try {
      return this.#reader.readCached(offset, into);
    } catch (error) {
      this.#post({ kind: 'fault', message: messageOf(error) });
      return false;
    }
  }

  #serveOther(): void {
    const { unique } = this.#request;
    const { file } = this.#data;
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
        if (file.readOnly) return this.#finish(unique, 0);
        return this.#handOver({ kind: 'flush', unique });
      case opcodes.lseek:
        return this.#seek(unique);
      case opcodes.flush:
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
    const length = this.#reply.init(this.#request, this.#data.file);
    if (length === null) {
      this.#refuse(unique, EPROTO);
      const refusal =
        'the kernel speaks a FUSE protocol before 7.28; Linux 4.20 or later is needed';
      return this.#post({ kind: 'ready', refusal });
    }
    this.#finish(unique, length);
    this.#post({ kind: 'ready', refusal: null });
  }

  /** A device has no times, owner or mode to change, and its size is fixed. */
  #setAttributes(unique: number): void {
    const { file } = this.#data;
    const { newSize } = this.#request;
    if (file.readOnly) return this.#refuse(unique, EROFS);
    if (newSize !== null && newSize !== file.sizeBytes) return this.#refuse(unique, EINVAL);
    this.#finish(unique, this.#reply.attributes(file));
  }

  #write(unique: number): void {
    const { offset, size, bytes } = this.#request;
    if (this.#data.file.readOnly) return this.#refuse(unique, EROFS);
    if (!this.#isWholeSectors(offset, size)) return this.#refuse(unique, EINVAL);
    // A copy: the buffer takes the next request while the main thread writes this one.
    const data = new Uint8Array(bytes.subarray(WRITE_DATA_AT, WRITE_DATA_AT + size));
    this.#handOver({ kind: 'write', unique, offset, data }, [data.buffer]);
  }

  #fallocate(unique: number): void {
    const { offset, fallocateLength: length, fallocateMode: mode } = this.#request;
    if (this.#data.file.readOnly) return this.#refuse(unique, EROFS);
    if (!this.#isWholeSectors(offset, length)) return this.#refuse(unique, EINVAL);
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

  #isWholeSectors(offset: number, length: number): boolean {
    const { sizeBytes } = this.#data.file;
    return (
      offset % SECTOR_BYTES === 0 && length % SECTOR_BYTES === 0 && offset + length <= sizeBytes
    );
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

/** A thread may be started before there is a device for it. */
parentPort?.once('message', (data: FuseWorkerData) => {
  void start(data);
});

async function start(data: FuseWorkerData): Promise<void> {
  const reader = await makeReader(data);
  new FuseWorker(data, reader).serve();
}

async function makeReader({ reader, ringIndex }: FuseWorkerData): Promise<WorkerReader> {
  if (reader.module === null) return new CachedReader(reader.device, ringIndex);
  const module = (await import(reader.module)) as ReaderModule;
  return new module.CachedReader(reader.data, ringIndex);
}
