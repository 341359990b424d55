import assert from 'node:assert/strict';
import { lsmtLimits } from '../../base/limits.ts';
import { formatError } from '../../base/errors.ts';
import { LSMT_DATA_SECTOR, LSMT_ENTRY_BYTES, LSMT_PADDING_LBA } from './format.ts';

/**
 * An index entry is two little-endian 64-bit words:
 *
 *   word 0: LBA (50 bits) | length in sectors (14 bits)
 *   word 1: mapped sector (55 bits) | zeroed (1 bit) | tag (8 bits)
 *
 * A zeroed entry reads as zeros, hides what lies below, and takes no space in the file.
 */
export interface LsmtEntry {
  lba: number;
  sectors: number;
  /** Sector of the LSMT file where the data begins. */
  mapped: number;
  zeroed: boolean;
  /** The source's number (0 = topmost) in merged layers; 0 elsewhere. Readers ignore it. */
  tag: number;
}

/** Sorted entries that do not overlap, as columns. Padding and empty entries are left out. */
export interface LsmtEntryColumns {
  readonly count: number;
  readonly start: Float64Array;
  readonly sectors: Uint16Array;
  readonly mapped: Float64Array;
  /** 1 where the entry reads as zeros. */
  readonly zeroed: Uint8Array;
  /** Some entry has a tag other than 0. */
  readonly hasTags: boolean;
}

const TWO_32 = 2 ** 32;
const LBA_HIGH_MASK = 0x3ffff;
const LENGTH_SHIFT = 18;
const MAPPED_HIGH_MASK = 0x7fffff;
const ZEROED_BIT = 1 << 23;
const TAG_SHIFT = 24;
const WORDS = LSMT_ENTRY_BYTES / 4;

/** Appends one entry as four 32-bit words at `words[at]`. */
export function encodeEntry(entry: LsmtEntry, words: Uint32Array, at: number): void {
  assert(entry.sectors <= lsmtLimits.segmentSectorsMax && entry.lba <= LSMT_PADDING_LBA);
  assert(entry.mapped < 2 ** 53 && entry.tag >= 0 && entry.tag <= 255);
  words[at] = entry.lba % TWO_32;
  words[at + 1] = Math.floor(entry.lba / TWO_32) | (entry.sectors << LENGTH_SHIFT);
  words[at + 2] = entry.mapped % TWO_32;
  words[at + 3] =
    Math.floor(entry.mapped / TWO_32) | (entry.zeroed ? ZEROED_BIT : 0) | (entry.tag << TAG_SHIFT);
}

/** The entry at `words[at]`, as it stands: the log of a writable layer is neither sorted nor cut. */
export function decodeEntry(words: Uint32Array, at: number): LsmtEntry {
  const high0 = words[at + 1];
  const high1 = words[at + 3];
  return {
    lba: (high0 & LBA_HIGH_MASK) * TWO_32 + words[at],
    sectors: high0 >>> LENGTH_SHIFT,
    mapped: (high1 & MAPPED_HIGH_MASK) * TWO_32 + words[at + 2],
    zeroed: (high1 & ZEROED_BIT) !== 0,
    tag: high1 >>> TAG_SHIFT,
  };
}

/** Index bytes as words; copied only where they are not aligned. */
export function indexWords(bytes: Uint8Array): Uint32Array {
  const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
  const count = Math.floor(aligned.byteLength / LSMT_ENTRY_BYTES);
  return new Uint32Array(aligned.buffer, aligned.byteOffset, count * WORDS);
}

/**
 * Decodes the index of a read-only layer. `sectorEnd` is where the layer's data ends, in sectors of
 * the file `name`. ERR_LSMT_ORDER when entries are out of order or overlap, ERR_LSMT_MAPPED when one
 * points outside the data.
 */
export function parseSortedEntries(
  bytes: Uint8Array,
  sectorEnd: number,
  name: string,
): LsmtEntryColumns {
  const words = indexWords(bytes);
  const capacity = words.length / WORDS;
  const start = new Float64Array(capacity);
  const sectors = new Uint16Array(capacity);
  const mapped = new Float64Array(capacity);
  const zeroed = new Uint8Array(capacity);
  let count = 0;
  let tags = 0;
  let previousEnd = 0;
  for (let at = 0; at < words.length; at += WORDS) {
    const high0 = words[at + 1];
    const high1 = words[at + 3];
    const lba = (high0 & LBA_HIGH_MASK) * TWO_32 + words[at];
    if (lba === LSMT_PADDING_LBA) continue;
    const length = high0 >>> LENGTH_SHIFT;
    const from = (high1 & MAPPED_HIGH_MASK) * TWO_32 + words[at + 2];
    const isZeroed = (high1 & ZEROED_BIT) !== 0;
    if (lba < previousEnd) throw orderError(name, at / WORDS, lba, previousEnd);
    const isInside = isZeroed
      ? from >= LSMT_DATA_SECTOR && from <= sectorEnd
      : from >= LSMT_DATA_SECTOR && from < sectorEnd && from + length <= sectorEnd;
    if (!isInside) throw mappedError(name, at / WORDS, from, isZeroed ? 0 : length, sectorEnd);
    previousEnd = lba + length;
    if (length === 0) continue;
    tags |= high1 >>> TAG_SHIFT;
    start[count] = lba;
    sectors[count] = length;
    mapped[count] = from;
    zeroed[count] = isZeroed ? 1 : 0;
    count += 1;
  }
  return {
    count,
    start: start.subarray(0, count),
    sectors: sectors.subarray(0, count),
    mapped: mapped.subarray(0, count),
    zeroed: zeroed.subarray(0, count),
    hasTags: tags !== 0,
  };
}

function orderError(name: string, entry: number, lba: number, previousEnd: number): Error {
  return formatError('ERR_LSMT_ORDER', {
    name,
    structure: `LSMT index entry ${entry}`,
    expected: `an LBA of at least ${previousEnd}, where the entry before it ends`,
    found: String(lba),
  });
}

/** The error for an entry that maps to sectors outside the data, shared with writable layers. */
export function mappedError(
  name: string,
  entry: number,
  from: number,
  length: number,
  sectorEnd: number,
): Error {
  return formatError('ERR_LSMT_MAPPED', {
    name,
    structure: `LSMT index entry ${entry}`,
    expected: `mapped sectors inside [${LSMT_DATA_SECTOR}, ${sectorEnd})`,
    found: `[${from}, ${from + length})`,
  });
}
