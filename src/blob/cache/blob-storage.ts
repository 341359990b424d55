import { closeSync, constants, ftruncateSync, openSync } from 'node:fs';
import { mapFile, mapMemory, type MemoryMap } from '../../../native/memory-map.ts';
import type { FileOperations } from './file-operations.ts';

/** Where one open blob's granules live. Offsets are granule-aligned; the last may be short. */
export interface BlobStorage {
  readonly map: MemoryMap;
  /** Makes bytes readable through the map; throws what the disk says. */
  write(bytes: Uint8Array, offset: number): void;
  /** Gives a range's room back. */
  release(offset: number, length: number): void;
  datasync(): Promise<void>;
  close(): void;
}

/** A sparse file, mapped. Ranges the disk has no room for can stand in memory instead. */
export class FileStorage implements BlobStorage {
  readonly map: MemoryMap;
  readonly #fd: number;
  readonly #files: FileOperations;

  constructor(path: string, sizeBytes: number, files: FileOperations) {
    this.#fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
    this.#files = files;
    try {
      ftruncateSync(this.#fd, sizeBytes);
      this.map = mapFile(this.#fd, sizeBytes, path);
    } catch (error) {
      closeSync(this.#fd);
      throw error;
    }
  }

  write(bytes: Uint8Array, offset: number): void {
    this.#files.write(this.#fd, bytes, offset);
  }

  release(offset: number, length: number): void {
    this.#files.punch(this.#fd, offset, length);
  }

  async datasync(): Promise<void> {
    await this.#files.datasync(this.#fd);
  }

  /** As `write`, into memory that takes the place of the file's pages. */
  writeToMemory(bytes: Uint8Array, offset: number): void {
    this.map.replaceWithMemory(offset, bytes.length);
    this.map.bytes.set(bytes, offset);
  }

  releaseMemory(offset: number, length: number): void {
    this.map.replaceWithFile(offset, length, this.#fd);
  }

  close(): void {
    this.map.unmap();
    closeSync(this.#fd);
  }
}

/** Memory only; gone when the blob is closed. */
export class MemoryStorage implements BlobStorage {
  readonly map: MemoryMap;

  constructor(sizeBytes: number, name: string) {
    this.map = mapMemory(sizeBytes, name);
  }

  write(bytes: Uint8Array, offset: number): void {
    this.map.bytes.set(bytes, offset);
  }

  release(offset: number, length: number): void {
    this.map.discard(offset, length);
  }

  async datasync(): Promise<void> {}

  close(): void {
    this.map.unmap();
  }
}
