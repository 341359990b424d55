import { libc } from './libc.ts';

const trim = findTrim();

/**
 * Gives memory that was freed back to the system, about a millisecond for a process of this kind:
 * glibc keeps it otherwise, and opening an image frees tens of megabytes. Does nothing with a C
 * library that has no malloc_trim.
 */
export function returnFreedMemory(): void {
  trim?.(0);
}

function findTrim(): ((keepBytes: number) => number) | null {
  try {
    return libc.func('int malloc_trim(size_t keep)');
  } catch {
    return null;
  }
}
