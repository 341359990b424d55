import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { readBootId } from '../../base/boot-id.ts';
import { crc32c } from '../../base/crc32c.ts';
import { codeOf } from '../../base/errors.ts';
import { upperLimits } from '../../base/limits.ts';
import { LSMT_ENTRY_BYTES } from './format.ts';
import { upperWriteError } from './upper-errors.ts';

/**
 * Changes of a writable layer that were acknowledged and are not in its log file yet. The file is
 * never synced: what is in it outlives the process, which may be killed, but not the machine, which
 * loses what was not flushed as any disk with a write cache does (docs/writable-layers.md).
 *
 *   two halves of 32 MiB, used in turn: while the changes of one are written to the log file, those
 *            that come go to the other
 *   half     96 bytes: magic, boot id, UUID of the data file, generation u32, entries u32 that the
 *            log file has before those of this half, zeros, CRC-32C of the 92 bytes before it
 *   records  an entry as in an LSMT index, generation u32, CRC-32C of both; the first that is of
 *            another generation is left from before
 */
const HALF_BYTES = 2 ** 25;
const MAGIC = Buffer.from('RBDPEND1', 'latin1');
const HEADER_BYTES = 96;
const BOOT_ID_AT = 8;
const UUID_AT = 44;
const GENERATION_AT = 80;
const LOG_ENTRIES_AT = 84;
const HEADER_CRC_AT = 92;
const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;
const RECORD_WORDS = ENTRY_WORDS + 2;
const RECORD_BYTES = RECORD_WORDS * 4;
/** Of a record; its CRC is behind them. */
const CHECKED_BYTES = RECORD_BYTES - 4;
const CHUNK_RECORDS = 4096;

/** Where the pending changes of a layer are. */
export function pendingPath(dataPath: string): string {
  return `${dataPath}.pending`;
}

/** What one half says in front of its records. */
export interface PendingHeader {
  readonly bootId: string;
  readonly uuid: string | null;
  /** Counts the batches of changes since the file was made. */
  readonly generation: number;
  /** Entries of the log file that come before those of this batch. */
  readonly logEntries: number;
}

/** Changes that were written to the log file together, or were to be. */
export interface PendingBatch extends PendingHeader {
  /** Entries in the order of the changes. */
  readonly words: Uint32Array;
}

/** The bytes in front of a half's records. */
export function pendingHeader(header: PendingHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.set(MAGIC);
  bytes.write(header.bootId, BOOT_ID_AT, UUID_AT - BOOT_ID_AT, 'latin1');
  bytes.write(header.uuid ?? '', UUID_AT, GENERATION_AT - UUID_AT, 'latin1');
  bytes.writeUInt32LE(header.generation, GENERATION_AT);
  bytes.writeUInt32LE(header.logEntries, LOG_ENTRIES_AT);
  bytes.writeUInt32LE(crc32c(bytes.subarray(0, HEADER_CRC_AT)), HEADER_CRC_AT);
  return bytes;
}

/** The file as the layer's owner has it: made anew when a layer is opened, removed when it is closed. */
export class PendingFile {
  readonly fd: number;
  #generation = -1;
  readonly #path: string;
  readonly #bootId = readBootId();
  readonly #uuid: string | null;

  /** ERR_UPPER_WRITE, ERR_UPPER_FULL. */
  constructor(dataPath: string, uuid: string | null) {
    this.#path = pendingPath(dataPath);
    this.#uuid = uuid;
    try {
      this.fd = openSync(this.#path, 'w+', 0o644);
    } catch (error) {
      throw upperWriteError(this.#path, 'cannot be made', error);
    }
  }

  /** That of changes that come now. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Begins the next generation, in the place of the last but one. `logEntries`: those of the log file
   * once it has all changes of the present one. ERR_UPPER_WRITE, ERR_UPPER_FULL.
   */
  begin(logEntries: number): void {
    const generation = this.#generation + 1;
    const bytes = pendingHeader({
      bootId: this.#bootId,
      uuid: this.#uuid,
      generation,
      logEntries,
    });
    writeWhole(this.fd, this.#path, bytes, startOf(generation));
    this.#generation = generation;
  }

  close(): void {
    closeSync(this.fd);
  }

  /** Nothing is pending. */
  remove(): void {
    rmSync(this.#path, { force: true });
  }
}

/** Writes records, on any thread, one at a time for all of them. */
export class PendingRecords {
  readonly #fd: number;
  readonly #name: string;
  readonly #record = new Uint32Array(RECORD_WORDS);
  readonly #bytes = new Uint8Array(this.#record.buffer);
  readonly #checked = this.#bytes.subarray(0, CHECKED_BYTES);

  constructor(fd: number, dataPath: string) {
    this.#fd = fd;
    this.#name = pendingPath(dataPath);
  }

  /**
   * Puts the entry at `words[at]` down as change number `slot` of a generation. ERR_UPPER_WRITE,
   * ERR_UPPER_FULL.
   */
  put(generation: number, slot: number, words: Uint32Array, at: number): void {
    const record = this.#record;
    for (let word = 0; word < ENTRY_WORDS; word += 1) record[word] = words[at + word];
    record[ENTRY_WORDS] = generation;
    record[ENTRY_WORDS + 1] = crc32c(this.#checked);
    const position = startOf(generation) + HEADER_BYTES + slot * RECORD_BYTES;
    writeWhole(this.#fd, this.#name, this.#bytes, position);
  }
}

/**
 * What a layer's file has of this boot of the machine, oldest first: nothing when there is no file, or
 * when it belongs to another data file. What is damaged counts as absent.
 */
export async function readPending(dataPath: string, uuid: string | null): Promise<PendingBatch[]> {
  let file: FileHandle;
  try {
    file = await open(pendingPath(dataPath), 'r');
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
  try {
    const halves = [await readHalf(file, 0, uuid), await readHalf(file, 1, uuid)];
    const found = halves.filter((half) => half !== null);
    found.sort((a, b) => a.generation - b.generation);
    if (found.length < 2 || isNext(found[0], found[1])) return found;
    return found.slice(1);
  } finally {
    await file.close();
  }
}

/** How a layer's log goes on. */
export interface PendingChanges {
  /** Entries of the last two batches, of which the log may have some, or all. */
  readonly recent: Uint32Array;
  /** Those behind the log's. */
  readonly pending: Uint32Array;
}

/**
 * What the batches add to `log`, which they continue or overlap; null when they do neither, as another
 * program has written the log since.
 */
export function continuationOf(log: Uint32Array, batches: PendingBatch[]): PendingChanges | null {
  const words = new Uint32Array(batches.reduce((sum, batch) => sum + batch.words.length, 0));
  let filled = 0;
  for (const batch of batches) {
    words.set(batch.words, filled);
    filled += batch.words.length;
  }
  if (words.length === 0) return { recent: words, pending: words };
  const overlap = log.length - batches[0].logEntries * ENTRY_WORDS;
  if (overlap < 0 || overlap > words.length) return null;
  const tail = log.subarray(log.length - overlap);
  const isSame = tail.every((word, at) => word === words[at]);
  return isSame ? { recent: words, pending: words.subarray(overlap) } : null;
}

function isNext(batch: PendingBatch, next: PendingBatch): boolean {
  const entries = batch.words.length / ENTRY_WORDS;
  return next.generation === batch.generation + 1 && next.logEntries === batch.logEntries + entries;
}

async function readHalf(
  file: FileHandle,
  half: number,
  uuid: string | null,
): Promise<PendingBatch | null> {
  const start = half * HALF_BYTES;
  const bytes = Buffer.alloc(HEADER_BYTES);
  await file.read(bytes, 0, HEADER_BYTES, start);
  const generation = bytes.readUInt32LE(GENERATION_AT);
  const logEntries = bytes.readUInt32LE(LOG_ENTRIES_AT);
  const header = { bootId: readBootId(), uuid, generation, logEntries };
  if (!bytes.equals(pendingHeader(header)) || generation % 2 !== half) return null;
  return { ...header, words: await readRecords(file, start + HEADER_BYTES, generation) };
}

async function readRecords(
  file: FileHandle,
  start: number,
  generation: number,
): Promise<Uint32Array> {
  const chunk = new Uint32Array(CHUNK_RECORDS * RECORD_WORDS);
  const bytes = new Uint8Array(chunk.buffer);
  const words: number[] = [];
  for (let slot = 0; slot < upperLimits.pendingEntriesMax; slot += CHUNK_RECORDS) {
    const { bytesRead } = await file.read(bytes, 0, bytes.length, start + slot * RECORD_BYTES);
    for (let at = 0; (at + RECORD_WORDS) * 4 <= bytesRead; at += RECORD_WORDS) {
      const record = chunk.subarray(at, at + RECORD_WORDS);
      const isWhole = record[ENTRY_WORDS + 1] === recordCrc(record);
      if (record[ENTRY_WORDS] !== generation || !isWhole) return Uint32Array.from(words);
      words.push(...record.subarray(0, ENTRY_WORDS));
    }
    if (bytesRead < bytes.length) break;
  }
  return Uint32Array.from(words);
}

function recordCrc(record: Uint32Array): number {
  return crc32c(new Uint8Array(record.buffer, record.byteOffset, CHECKED_BYTES));
}

/** Where the half of a generation begins. */
function startOf(generation: number): number {
  return (generation % 2) * HALF_BYTES;
}

function writeWhole(fd: number, name: string, bytes: Uint8Array, position: number): void {
  try {
    for (let done = 0; done < bytes.length;) {
      done += writeSync(fd, bytes, done, bytes.length - done, position + done);
    }
  } catch (error) {
    throw upperWriteError(name, `${bytes.length} bytes at ${position}`, error);
  }
}
