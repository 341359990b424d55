import koffi from 'koffi';
import type { ByteRange } from '../src/base/range.ts';
import { errnoError, libc } from './libc.ts';

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

const lseek = libc.func('int64_t lseek(int fd, int64_t offset, int whence)');

/**
 * The first range at or after `from` that the file system stores for an open file, or null when
 * only a hole is left. What lies outside such ranges reads as zeros; what lies inside may too.
 * Moves the file's position. Errors: the errno of lseek, naming `name`.
 */
export function nextDataRange(fd: number, from: number, name: string): ByteRange | null {
  const start = Number(lseek(fd, from, SEEK_DATA));
  if (start < 0) {
    if (koffi.errno() === koffi.os.errno.ENXIO) return null;
    throw errnoError('lseek(SEEK_DATA)', name);
  }
  const end = Number(lseek(fd, start, SEEK_HOLE));
  if (end < 0) throw errnoError('lseek(SEEK_HOLE)', name);
  return { offset: start, length: end - start };
}
