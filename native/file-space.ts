import { closeSync, constants, openSync } from 'node:fs';
import { errnoError, libc } from './libc.ts';

const flock = libc.func('int flock(int fd, int operation)');
const fallocate = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)');

const LOCK_EX = 2;
const LOCK_NB = 4;
const EAGAIN = 11;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** Takes an exclusive lock that ends with the file descriptor; false when another has it. */
export function tryLockFile(fd: number, name: string): boolean {
  if (flock(fd, LOCK_EX | LOCK_NB) === 0) return true;
  const error = errnoError('flock', name);
  if (error.errnoNumber === EAGAIN) return false;
  throw error;
}

/**
 * Takes the lock file of a folder, which it makes; null when another process has it. The lock ends with the
 * file descriptor that it gives.
 */
export function tryLockFolder(folder: string): number | null {
  const path = `${folder}/lock`;
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  try {
    if (tryLockFile(fd, path)) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return null;
}

/** Gives a range's blocks back to the file system; the range reads as zeros afterwards. */
export function punchHole(fd: number, offset: number, length: number): void {
  if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length) !== 0) {
    throw errnoError('fallocate', `hole of ${length} bytes at ${offset}`);
  }
}
