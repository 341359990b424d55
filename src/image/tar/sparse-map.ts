import { tarLimits } from '../../base/limits.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import { tarError } from './entry.ts';
import { FIELD, numberField, TAR_BLOCK_BYTES, type Field } from './fields.ts';

const GNU_ENTRY_BYTES = 24;
const GNU_NUMBER_BYTES = 12;
const GNU_EXTENSION_ENTRIES = 21;
/** A byte behind the entries of an extension block: another one follows. */
const GNU_EXTENSION_FLAG_AT = GNU_EXTENSION_ENTRIES * GNU_ENTRY_BYTES;
const NEWLINE = 0x0a;

/** Adds the entries of an old GNU sparse header; true when an extension block follows. */
export function readGnuHeaderMap(block: Buffer, map: ByteRange[], position: number): boolean {
  readGnuEntries(block, FIELD.gnuSparse, map, position);
  return block[FIELD.gnuIsExtended.at] !== 0;
}

/** Adds the entries of an extension block; true when another one follows. */
export function readGnuExtension(block: Buffer, map: ByteRange[], position: number): boolean {
  const bytes = GNU_EXTENSION_ENTRIES * GNU_ENTRY_BYTES;
  readGnuEntries(block, { at: 0, bytes }, map, position);
  return block[GNU_EXTENSION_FLAG_AT] !== 0;
}

function readGnuEntries(block: Buffer, field: Field, map: ByteRange[], position: number): void {
  for (let at = field.at; at < field.at + field.bytes; at += GNU_ENTRY_BYTES) {
    if (block[at] === 0) return;
    const offset = numberField(block, { at, bytes: GNU_NUMBER_BYTES });
    const length = numberField(block, { at: at + GNU_NUMBER_BYTES, bytes: GNU_NUMBER_BYTES });
    if (offset === null || length === null) {
      throw tarError('ERR_TAR_SPARSE', position, 'a sparse map of numbers', `other at byte ${at}`);
    }
    addRange(map, { offset, length }, position);
  }
}

/** `offset,length,offset,length...`, as pax headers of sparse format 0.1 have it. */
export function readPaxMap(text: string, position: number): ByteRange[] {
  const map: ByteRange[] = [];
  const numbers = text === '' ? [] : text.split(',', 2 * tarLimits.sparseRangesMax + 1);
  for (let at = 0; at < numbers.length; at += 2) {
    const offset = wholeNumber(numbers[at] ?? '', position);
    addRange(map, { offset, length: wholeNumber(numbers[at + 1] ?? '', position) }, position);
  }
  return map;
}

/** The map at the begin of a file's content, sparse format 1.0: lines of decimal numbers, first how
 * many ranges, padded to whole blocks. */
export class ContentMap {
  readonly ranges: ByteRange[] = [];
  /** Bytes of content that were the map. */
  bytesRead = 0;
  readonly #position: number;
  #line = '';
  #left: number | null = null;
  #offset: number | null = null;

  constructor(position: number) {
    this.#position = position;
  }

  /** Takes a block; true when the map is complete. */
  push(block: Buffer): boolean {
    this.bytesRead += TAR_BLOCK_BYTES;
    let start = 0;
    while (this.#left !== 0) {
      const end = block.indexOf(NEWLINE, start);
      this.#line += block.toString('latin1', start, end === -1 ? block.length : end);
      if (end === -1) {
        if (this.#line.length > DIGITS_MAX) wholeNumber(this.#line, this.#position);
        return false;
      }
      start = end + 1;
      this.#take(wholeNumber(this.#line, this.#position));
      this.#line = '';
    }
    return true;
  }

  #take(value: number): void {
    if (this.#left === null) {
      checkCount(value, this.#position);
      this.#left = value;
    } else if (this.#offset === null) {
      this.#offset = value;
    } else {
      addRange(this.ranges, { offset: this.#offset, length: value }, this.#position);
      this.#offset = null;
      this.#left -= 1;
    }
  }
}

/** A map that can be used: ranges in order that do not overlap, inside the file, and as long together
 * as the content that is stored. Errors: ERR_TAR_SPARSE. */
export function checkMap(
  map: readonly ByteRange[],
  sizeBytes: number,
  storedBytes: number,
  position: number,
): void {
  let end = 0;
  let sum = 0;
  for (const range of map) {
    if (range.offset < end || range.length < 0 || rangeEnd(range) > sizeBytes) {
      throw tarError(
        'ERR_TAR_SPARSE',
        position,
        `sparse ranges in order within a file of ${sizeBytes} bytes`,
        `${range.length} bytes at ${range.offset}`,
      );
    }
    end = rangeEnd(range);
    sum += range.length;
  }
  if (sum !== storedBytes) {
    throw tarError(
      'ERR_TAR_SPARSE',
      position,
      `sparse ranges for ${storedBytes} bytes of content`,
      `${sum} bytes`,
    );
  }
}

export function addRange(map: ByteRange[], range: ByteRange, position: number): void {
  checkCount(map.length + 1, position);
  map.push(range);
}

function checkCount(count: number, position: number): void {
  if (count <= tarLimits.sparseRangesMax) return;
  const expected = `at most ${tarLimits.sparseRangesMax} sparse ranges`;
  throw tarError('ERR_TAR_SPARSE', position, expected, 'more');
}

const DIGITS_MAX = 16;

/** Decimal digits, as a safe integer. Errors: ERR_TAR_SPARSE. */
export function wholeNumber(text: string, position: number): number {
  const value = Number(text);
  if (/^[0-9]{1,16}$/.test(text) && Number.isSafeInteger(value)) return value;
  const found = JSON.stringify(text.slice(0, 2 * DIGITS_MAX));
  throw tarError('ERR_TAR_SPARSE', position, 'a decimal number in a sparse map', found);
}
