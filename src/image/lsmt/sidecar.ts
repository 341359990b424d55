import { open, type FileHandle } from 'node:fs/promises';
import { writeFileAtomic } from '../../base/atomic-file.ts';
import { crc32c } from '../../base/crc32c.ts';
import { codeOf, formatError } from '../../base/errors.ts';
import { upperLimits } from '../../base/limits.ts';
import { LSMT_DATA_SECTOR, LSMT_ENTRY_BYTES } from './format.ts';
import { encodeEntry, indexWords, type LsmtEntryColumns } from './index-entries.ts';

/**
 * What a sparse layer's file cannot say: which sectors were zeroed, and which sectors of a block
 * that the file system stores were never written. The sidecar is a log of the layer's changes in a
 * file of its own, which the original ignores (docs/writable-layers.md):
 *
 *   header   64 bytes: magic, UUID of the data file, zeros, CRC-32C of the 60 bytes before it
 *   frames   magic u32, entries u32, number u32 (from 0), CRC-32C u32 of those three and the
 *            entries; then the entries, as in an LSMT index, mapped to where their data would be
 *
 * A frame that is not whole ends the log: what was flushed is before it.
 */
export interface SidecarLog {
  /** Entries in the order they were written. */
  readonly words: Uint32Array;
  /** Bytes of the header and of whole frames: where the next frame goes. */
  readonly endBytes: number;
  readonly frames: number;
  /** Bytes behind them that are no whole frame. */
  readonly tornBytes: number;
}

const MAGIC = Buffer.from('RBDSECT1', 'latin1');
const HEADER_BYTES = 64;
const UUID_AT = 8;
const HEADER_CRC_AT = 60;
const FRAME_MAGIC = 0x4653_4252;
const FRAME_HEADER_BYTES = 16;
const FRAME_CRC_AT = 12;
const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;

/** Where the sidecar of a sparse layer is. */
export function sidecarPath(dataPath: string): string {
  return `${dataPath}.sectors`;
}

/** The header that belongs to the data file of this UUID. */
export function sidecarHeader(uuid: string | null): Uint8Array {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.set(MAGIC);
  bytes.write(uuid ?? '', UUID_AT, 'latin1');
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, HEADER_CRC_AT)), HEADER_CRC_AT);
  return bytes;
}

/** One frame with the entries given as words. */
export function sidecarFrame(words: Uint32Array, number: number): Uint8Array {
  const bytes = Buffer.alloc(FRAME_HEADER_BYTES + words.byteLength);
  bytes.writeUInt32LE(FRAME_MAGIC, 0);
  bytes.writeUInt32LE(words.length / ENTRY_WORDS, 4);
  bytes.writeUInt32LE(number, 8);
  bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), FRAME_HEADER_BYTES);
  bytes.writeUInt32LE(frameCrc(bytes), FRAME_CRC_AT);
  return bytes;
}

/**
 * Parses the sidecar `name` of the data file of this UUID. Null when it belongs to another one, which
 * was here before. ERR_SIDECAR when it is none; what is not whole behind its header ends the log.
 */
export function parseSidecar(
  bytes: Uint8Array,
  uuid: string | null,
  name: string,
): SidecarLog | null {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (!isHeader(file)) {
    throw formatError(
      'ERR_SIDECAR',
      { name, structure: 'header', expected: 'magic and checksum', found: 'others' },
      'Without the file the layer opens as the original would: discarded sectors reappear.',
    );
  }
  if (!file.subarray(0, HEADER_BYTES).equals(sidecarHeader(uuid))) return null;
  const parts: Uint32Array[] = [];
  let at = HEADER_BYTES;
  for (let end = frameEnd(file, at, 0); end > 0; end = frameEnd(file, at, parts.length)) {
    parts.push(indexWords(file.subarray(at + FRAME_HEADER_BYTES, end)));
    at = end;
  }
  const words = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let filled = 0;
  for (const part of parts) {
    words.set(part, filled);
    filled += part.length;
  }
  return { words, endBytes: at, frames: parts.length, tornBytes: file.length - at };
}

/** Reads the sidecar of a data file; null when there is none, or another's. ERR_SIDECAR. */
export async function readSidecar(
  dataPath: string,
  uuid: string | null,
): Promise<SidecarLog | null> {
  let file: FileHandle;
  try {
    file = await open(sidecarPath(dataPath), 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
  try {
    return parseSidecar(await file.readFile(), uuid, sidecarPath(dataPath));
  } finally {
    await file.close();
  }
}

/** Replaces the sidecar by one that says what `entries` say; durable when it returns. */
export async function writeSidecar(
  dataPath: string,
  uuid: string | null,
  entries: LsmtEntryColumns,
): Promise<void> {
  const parts = [sidecarHeader(uuid)];
  const entriesMax = upperLimits.frameEntriesMax;
  for (let from = 0; from < entries.count; from += entriesMax) {
    const to = Math.min(from + entriesMax, entries.count);
    parts.push(sidecarFrame(entryWords(entries, from, to), parts.length - 1));
  }
  await writeFileAtomic(sidecarPath(dataPath), Buffer.concat(parts));
}

function entryWords(entries: LsmtEntryColumns, from: number, to: number): Uint32Array {
  const words = new Uint32Array((to - from) * ENTRY_WORDS);
  for (let row = from; row < to; row += 1) {
    const lba = entries.start[row];
    const entry = {
      lba,
      sectors: entries.sectors[row],
      mapped: lba + LSMT_DATA_SECTOR,
      zeroed: entries.zeroed[row] === 1,
      tag: 0,
    };
    encodeEntry(entry, words, (row - from) * ENTRY_WORDS);
  }
  return words;
}

function isHeader(file: Buffer): boolean {
  if (file.length < HEADER_BYTES || !file.subarray(0, MAGIC.length).equals(MAGIC)) return false;
  return file.readUInt32LE(HEADER_CRC_AT) === crc32c(file.subarray(0, HEADER_CRC_AT));
}

/** Where the whole frame at `at` ends; 0 when there is none. */
function frameEnd(file: Buffer, at: number, number: number): number {
  if (at + FRAME_HEADER_BYTES > file.length) return 0;
  const count = file.readUInt32LE(at + 4);
  const end = at + FRAME_HEADER_BYTES + count * LSMT_ENTRY_BYTES;
  if (file.readUInt32LE(at) !== FRAME_MAGIC || file.readUInt32LE(at + 8) !== number) return 0;
  if (count === 0 || count > upperLimits.frameEntriesMax || end > file.length) return 0;
  return file.readUInt32LE(at + FRAME_CRC_AT) === frameCrc(file.subarray(at, end)) ? end : 0;
}

function frameCrc(frame: Buffer): number {
  return crc32c(frame.subarray(FRAME_HEADER_BYTES), crc32c(frame.subarray(0, FRAME_CRC_AT)));
}
