import { libc } from './libc.ts';

const trim = find('int malloc_trim(size_t keep)');
const setOption = find('int mallopt(int option, int value)');
/** glibc's M_ARENA_MAX. */
const ARENAS_MAX_OPTION = -8;

/**
 * Gives memory that was freed back to the system, about a millisecond for a process of this kind:
 * glibc keeps it otherwise, and opening an image frees tens of megabytes. Does nothing with a C
 * library that has no malloc_trim.
 */
export function returnFreedMemory(): void {
  trim?.(0);
}

/**
 * Has threads that start later share one heap: glibc gives each its own otherwise, which keeps about
 * 20 MB for threads that allocate little. Does nothing with a C library that has no mallopt.
 */
export function shareOneHeap(): void {
  setOption?.(ARENAS_MAX_OPTION, 1);
}

function find(prototype: string): ((...values: number[]) => number) | null {
  try {
    return libc.func(prototype);
  } catch {
    return null;
  }
}
