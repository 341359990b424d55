import { setImmediate as nextTurn } from 'node:timers/promises';
import { fsReadLimits } from '../../base/limits.ts';

/** A disk's bytes, for reading a file system on it. */
export interface Disk {
  /** For messages. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Exactly [offset, offset + length), which must lie on the disk. Not to be written to. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

const PAGE_BYTES = 4096;

/**
 * Keeps what was read, in pages, up to 64 MiB of it; what is asked for twice is read once. Larger pages
 * save round trips where much is read.
 */
export function cachedDisk(disk: Disk, pageBytes = PAGE_BYTES): Disk {
  const pagesMax = fsReadLimits.cachedBytesMax / pageBytes;
  const pages = new Map<number, Promise<Uint8Array>>();
  const page = (number: number): Promise<Uint8Array> => {
    const known = pages.get(number);
    if (known !== undefined) return known;
    const offset = number * pageBytes;
    const reading = disk.read(offset, Math.min(pageBytes, disk.sizeBytes - offset));
    pages.set(number, reading);
    // A read that failed may be tried again; whoever waits for it is told.
    reading.catch(() => pages.delete(number));
    if (pages.size > pagesMax) {
      const [oldest] = pages.keys();
      pages.delete(oldest);
    }
    return reading;
  };
  let reads = 0;
  const read = async (offset: number, length: number) => {
    reads += 1;
    // What is cached comes without a turn of the event loop: a long walk would starve all others.
    if (reads % fsReadLimits.readsPerTurn === 0) await nextTurn();
    const first = Math.floor(offset / pageBytes);
    const end = Math.ceil((offset + length) / pageBytes);
    const parts = await Promise.all(Array.from({ length: end - first }, (_, i) => page(first + i)));
    const from = offset - first * pageBytes;
    if (parts.length === 1) return parts[0].subarray(from, from + length);
    return Buffer.concat(parts).subarray(from, from + length);
  };
  return { name: disk.name, sizeBytes: disk.sizeBytes, read };
}

/** Tells of every read, whether it is served from a cache or not. */
export function watchedDisk(disk: Disk, onRead: (offset: number, length: number) => void): Disk {
  return {
    name: disk.name,
    sizeBytes: disk.sizeBytes,
    read: (offset, length) => {
      onRead(offset, length);
      return disk.read(offset, length);
    },
  };
}
