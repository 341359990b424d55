/** The unit a tar is made of: headers, and what content is padded to. */
export const TAR_BLOCK_BYTES = 512;

/** Byte offsets in a header (POSIX ustar, with GNU's uses of the last 155 bytes). */
export const FIELD = {
  name: { at: 0, bytes: 100 },
  mode: { at: 100, bytes: 8 },
  uid: { at: 108, bytes: 8 },
  gid: { at: 116, bytes: 8 },
  size: { at: 124, bytes: 12 },
  mtime: { at: 136, bytes: 12 },
  checksum: { at: 148, bytes: 8 },
  type: { at: 156, bytes: 1 },
  linkName: { at: 157, bytes: 100 },
  magic: { at: 257, bytes: 8 },
  deviceMajor: { at: 329, bytes: 8 },
  deviceMinor: { at: 337, bytes: 8 },
  prefix: { at: 345, bytes: 155 },
  starPrefix: { at: 345, bytes: 131 },
  gnuSparse: { at: 386, bytes: 96 },
  gnuIsExtended: { at: 482, bytes: 1 },
  gnuRealSize: { at: 483, bytes: 12 },
  starTrailer: { at: 508, bytes: 4 },
} as const;

export interface Field {
  readonly at: number;
  readonly bytes: number;
}

/** Text up to the first NUL, a character a byte. */
export function textField(block: Buffer, { at, bytes }: Field): string {
  const end = block.indexOf(0, at);
  return block.toString('latin1', at, end === -1 || end > at + bytes ? at + bytes : end);
}

const SPACE = 0x20;
const DIGIT_0 = 0x30;
const DIGIT_7 = 0x37;
const BASE_256 = 0x80;
const BASE_256_SIGN = 0x40;

/**
 * A number: octal digits among spaces and NULs, or big-endian bytes behind a set bit (GNU), which
 * may be negative. An empty field is 0. Null when it is neither, or not a safe integer.
 */
export function numberField(block: Buffer, { at, bytes }: Field): number | null {
  const first = block[at] ?? 0;
  if ((first & BASE_256) !== 0) return base256(block, at, bytes);
  let index = at;
  const end = at + bytes;
  while (index < end && (block[index] === SPACE || block[index] === 0)) index += 1;
  let value = 0;
  for (; index < end; index += 1) {
    const digit = block[index] ?? 0;
    if (digit === SPACE || digit === 0) break;
    if (digit < DIGIT_0 || digit > DIGIT_7) return null;
    value = value * 8 + digit - DIGIT_0;
  }
  return Number.isSafeInteger(value) ? value : null;
}

function base256(block: Buffer, at: number, bytes: number): number | null {
  const first = block[at] ?? 0;
  const isNegative = (first & BASE_256_SIGN) !== 0;
  let value = isNegative ? (first & 0x7f) - 0x80 : first & 0x7f;
  for (let index = at + 1; index < at + bytes; index += 1) {
    value = value * 256 + (block[index] ?? 0);
    if (!Number.isSafeInteger(value)) return null;
  }
  return value;
}

export function isZeroBlock(block: Buffer): boolean {
  return block.equals(ZERO_BLOCK);
}

const ZERO_BLOCK = Buffer.alloc(TAR_BLOCK_BYTES);

/** The checksum that a header states is that of its unsigned bytes, or of signed ones, as some old
 * programs had it. */
export function isChecksumGood(block: Buffer): boolean {
  const stated = numberField(block, FIELD.checksum);
  const sum = checksumOf(block);
  if (stated === sum) return true;
  let high = 0;
  for (let at = 0; at < TAR_BLOCK_BYTES; at += 1) {
    if (at === FIELD.checksum.at) at += FIELD.checksum.bytes;
    high += (block[at] ?? 0) >>> 7;
  }
  return stated === sum - 256 * high;
}

/** The sum of a header's bytes, its checksum field counted as spaces. */
export function checksumOf(block: Buffer): number {
  let sum = FIELD.checksum.bytes * SPACE;
  for (let at = 0; at < TAR_BLOCK_BYTES; at += 1) {
    if (at === FIELD.checksum.at) at += FIELD.checksum.bytes;
    sum += block[at] ?? 0;
  }
  return sum;
}
