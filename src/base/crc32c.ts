import { crc32c as standardCrc32c } from '@node-rs/crc32';

/** CRC-32C (Castagnoli) with the usual inversions; pass the previous value to continue. */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  return standardCrc32c(bytes, previous) >>> 0;
}

/**
 * overlaybd's CRC-32C: the register starts at `seed` and is inverted neither before nor after.
 * Inverting the seed and the result turns one convention into the other.
 */
export function crc32cRaw(seed: number, bytes: Uint8Array): number {
  return ~standardCrc32c(bytes, ~seed >>> 0) >>> 0;
}
