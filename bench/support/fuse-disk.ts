import { randomFillSync } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { ReplaybdError, type ErrnoName } from '../../src/base/errors.ts';
import type {
  BlockDevice,
  DeviceExtent,
  DeviceWriter,
  SharedDevice,
} from '../../src/device/block-device.ts';
import { siblingModule } from '../../src/base/package-root.ts';
import type { ReaderModule } from '../../src/frontend/fuse/server.ts';
import { touchesMiss, type MemoryReaderData } from './fuse-reader.ts';

export interface MemoryDiskOptions {
  /** See MemoryReaderData. */
  missBytes?: number;
  /** How long the main thread takes over a miss. */
  missMs?: number;
  writable?: boolean;
  /** Workers read and write by themselves what is no miss. */
  sharesWrites?: boolean;
}

/** A disk in memory whose reads can be told to miss. */
export class MemoryDisk implements BlockDevice {
  readonly id: string;
  readonly bytes: Uint8Array;
  readonly readOnly: boolean;
  readonly writer?: DeviceWriter;
  /** What the main thread was asked for, as `read OFFSET LENGTH` and the like. */
  readonly calls: string[] = [];
  readonly #shared: SharedArrayBuffer;
  readonly #missBytes: number;
  readonly #missMs: number;
  readonly #sharesWrites: boolean;
  #failure: ErrnoName | null = null;

  constructor(id: string, sizeBytes: number, options: MemoryDiskOptions = {}) {
    this.id = id;
    this.#shared = new SharedArrayBuffer(sizeBytes);
    this.bytes = new Uint8Array(this.#shared);
    this.#missBytes = options.missBytes ?? 0;
    this.#missMs = options.missMs ?? 0;
    this.#sharesWrites = options.sharesWrites === true;
    this.readOnly = options.writable !== true;
    if (options.writable === true) this.writer = this.#makeWriter();
  }

  get virtualSizeBytes(): number {
    return this.bytes.length;
  }

  get shared(): SharedDevice {
    throw new Error('a memory disk has no layers; give startFuse its reader');
  }

  get reader(): ReaderModule {
    const data: MemoryReaderData = { disk: this.#shared, missBytes: this.#missBytes };
    const url = siblingModule('fuse-reader', import.meta.url);
    return { url, data, sharesWrites: this.#sharesWrites };
  }

  fillRandom(): this {
    randomFillSync(this.bytes);
    return this;
  }

  /** Every miss from now on fails. */
  failWith(errno: ErrnoName): void {
    this.#failure = errno;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    if (touchesMiss(offset, into.length, this.#missBytes)) return false;
    into.set(this.bytes.subarray(offset, offset + into.length));
    return true;
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.calls.push(`read ${offset} ${into.length}`);
    if (this.#missMs > 0)
      await sleep(this.#missMs, undefined, signal === undefined ? {} : { signal });
    if (this.#failure !== null) {
      throw new ReplaybdError('ERR_TEST', `${this.id}: told to fail`, { errno: this.#failure });
    }
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  /** Every second MiB counts as a hole. */
  extents(offset: number, length: number): DeviceExtent[] {
    const mib = 1024 * 1024;
    const end = Math.min(offset + length, (Math.floor(offset / mib) + 1) * mib);
    return [{ offset, length: end - offset, zero: Math.floor(offset / mib) % 2 === 1 }];
  }

  #makeWriter(): DeviceWriter {
    return {
      write: async (offset, data) => {
        this.calls.push(`write ${offset} ${data.length}`);
        this.bytes.set(data, offset);
      },
      flush: async () => {
        this.calls.push('flush');
      },
      discard: async (offset, length) => {
        this.calls.push(`discard ${offset} ${length}`);
        this.bytes.fill(0, offset, offset + length);
      },
      writeZeroes: async (offset, length) => {
        this.calls.push(`writeZeroes ${offset} ${length}`);
        this.bytes.fill(0, offset, offset + length);
      },
    };
  }
}
