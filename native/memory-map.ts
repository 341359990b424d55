import koffi from 'koffi';
import { errnoError, libc } from './libc.ts';

const mmap = libc.func(
  'intptr_t mmap(intptr_t address, size_t length, int protection, int flags, int fd, int64_t offset)',
);
const munmap = libc.func('int munmap(intptr_t address, size_t length)');
const madvise = libc.func('int madvise(intptr_t address, size_t length, int advice)');

const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 0x01;
const MAP_PRIVATE = 0x02;
const MAP_FIXED = 0x10;
const MAP_ANONYMOUS = 0x20;
const MAP_NORESERVE = 0x4000;
const MADV_DONTNEED = 4;
const MAP_FAILED = -1;
const WINDOW_BYTES_MIN = 2 ** 34;

/**
 * A range of this process's address space: a file's pages, or anonymous ones. All threads see it.
 * Offsets and lengths given to its methods are multiples of the page size, except at the end.
 */
export class MemoryMap {
  /** Address of byte 0; 0 for an empty map. */
  readonly address: number;
  readonly sizeBytes: number;
  readonly bytes: Uint8Array;
  #mapped: boolean;

  constructor(address: number, sizeBytes: number) {
    this.address = address;
    this.sizeBytes = sizeBytes;
    this.#mapped = sizeBytes > 0;
    this.bytes = new Uint8Array(
      this.#mapped ? koffi.view(BigInt(address), sizeBytes) : new ArrayBuffer(0),
    );
  }

  /** Puts fresh, writable, zeroed memory of this process where the file's pages were. */
  replaceWithMemory(offset: number, length: number): void {
    this.#replace(offset, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  }

  /** Undoes `replaceWithMemory`. */
  replaceWithFile(offset: number, length: number, fd: number): void {
    this.#replace(offset, length, PROT_READ, MAP_SHARED, fd);
  }

  /**
   * Gives pages back to the system. Afterwards anonymous ones read as zeros, and a file's as before: they
   * stay in the page cache.
   */
  discard(offset: number, length: number): void {
    if (madvise(this.address + offset, length, MADV_DONTNEED) !== 0) {
      throw errnoError('madvise', `${length} bytes at ${offset}`);
    }
  }

  /**
   * Ends the mapping. `bytes` becomes empty, so that a late reader of this thread finds nothing
   * instead of a fault; other threads must have stopped before.
   */
  unmap(): void {
    if (!this.#mapped) return;
    this.#mapped = false;
    (this.bytes.buffer as ArrayBuffer).transfer(0);
    if (munmap(this.address, this.sizeBytes) !== 0) {
      throw errnoError('munmap', `${this.sizeBytes} bytes`);
    }
  }

  #replace(offset: number, length: number, protection: number, flags: number, fd: number): void {
    const fileOffset = fd < 0 ? 0 : offset;
    const address = this.address + offset;
    if (mmap(address, length, protection, flags | MAP_FIXED, fd, fileOffset) === MAP_FAILED) {
      throw errnoError('mmap', `${length} bytes at ${offset}`);
    }
  }
}

/** Maps the first `sizeBytes` of a file read-only; later writes to the file show through. */
export function mapFile(fd: number, sizeBytes: number, name: string): MemoryMap {
  return mapPages(sizeBytes, PROT_READ, MAP_SHARED, fd, name);
}

/**
 * Maps bytes [offset, offset + sizeBytes) of a file that others write too, to read and write. Touching
 * what the file does not have kills the process (SIGBUS), so look at its size first.
 */
export function mapShared(fd: number, offset: number, sizeBytes: number, name: string): MemoryMap {
  return mapPages(sizeBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, name, offset);
}

/** Maps memory that is shared with the kernel through a device; writes reach it. */
export function mapDevice(fd: number, sizeBytes: number, name: string): MemoryMap {
  return mapPages(sizeBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, name);
}

/**
 * Maps a file that grows, read-only, far beyond its present end: `sizeBytesMax`, or less where
 * there is no room for it among this process's addresses. Who touches what the file does not have
 * yet is killed (SIGBUS). Nothing but the address: a view would look like that much memory.
 */
export function mapGrowingFile(fd: number, sizeBytesMax: number, name: string): FileWindow {
  for (let sizeBytes = sizeBytesMax; ; sizeBytes /= 2) {
    const address: number = mmap(0, sizeBytes, PROT_READ, MAP_SHARED, fd, 0);
    if (address !== MAP_FAILED) return { address, sizeBytes };
    const error = errnoError('mmap', name);
    if (error.code !== 'ERR_ENOMEM' || sizeBytes <= WINDOW_BYTES_MIN) throw error;
  }
}

/** Ends such a mapping; no thread may be reading from it. */
export function unmapWindow({ address, sizeBytes }: FileWindow): void {
  if (munmap(address, sizeBytes) !== 0) throw errnoError('munmap', `${sizeBytes} bytes`);
}

/** A mapping known by its address alone. */
export interface FileWindow {
  readonly address: number;
  readonly sizeBytes: number;
}

/** Maps zeroed memory that takes up room only as it is written. */
export function mapMemory(sizeBytes: number, name: string): MemoryMap {
  const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  return mapPages(sizeBytes, PROT_READ | PROT_WRITE, flags, -1, name);
}

function mapPages(
  sizeBytes: number,
  protection: number,
  flags: number,
  fd: number,
  name: string,
  offset = 0,
): MemoryMap {
  if (sizeBytes === 0) return new MemoryMap(0, 0);
  const address: number = mmap(0, sizeBytes, protection, flags, fd, offset);
  if (address === MAP_FAILED) throw errnoError('mmap', name);
  return new MemoryMap(address, sizeBytes);
}
