import { fdatasync, writeSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { punchHole } from '../../../native/file-space.ts';

/** What the cache does to its disk. Tests wrap it to make a disk fail. */
export interface FileOperations {
  /**
   * Writes everything or throws. Synchronous: the bytes go to the page cache, a granule is then
   * readable at once, and a slow disk slows the network down instead of filling memory.
   */
  write(fd: number, bytes: Uint8Array, position: number): void;
  datasync(fd: number): Promise<void>;
  punch(fd: number, offset: number, length: number): void;
  /** Replaces a whole file, durably and atomically. */
  replace(path: string, bytes: Uint8Array): Promise<void>;
}

export const systemFiles: FileOperations = {
  write(fd, bytes, position) {
    let done = 0;
    while (done < bytes.length) {
      done += writeSync(fd, bytes, done, bytes.length - done, position + done);
    }
  },
  datasync: promisify(fdatasync),
  punch: punchHole,
  async replace(path, bytes) {
    const temporary = `${path}.tmp`;
    const file = await open(temporary, 'w', 0o600);
    try {
      await file.writeFile(bytes);
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  },
};

/** Makes a folder's entries (a rename, an unlink) durable. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
