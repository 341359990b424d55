/** What the reader of a MemoryDisk is made of. */
export interface MemoryReaderData {
  disk: SharedArrayBuffer;
  /** Reads, and writes, that touch an odd run of this many bytes are misses; 0 for none. */
  missBytes: number;
}

/** The worker threads' reader of a MemoryDisk. */
export class CachedReader {
  readonly #disk: Uint8Array;
  readonly #missBytes: number;

  constructor(data: MemoryReaderData) {
    this.#disk = new Uint8Array(data.disk);
    this.#missBytes = data.missBytes;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    if (touchesMiss(offset, into.length, this.#missBytes)) return false;
    into.set(this.#disk.subarray(offset, offset + into.length));
    return true;
  }

  write(offset: number, data: Uint8Array): boolean {
    if (touchesMiss(offset, data.length, this.#missBytes)) return false;
    this.#disk.set(data, offset);
    return true;
  }
}

export function touchesMiss(offset: number, length: number, missBytes: number): boolean {
  if (missBytes === 0) return false;
  const first = Math.floor(offset / missBytes);
  const last = Math.floor((offset + length - 1) / missBytes);
  return first % 2 === 1 || last > first;
}
