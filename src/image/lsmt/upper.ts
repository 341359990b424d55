import { open, type FileHandle } from 'node:fs/promises';
import { SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import { formatError } from '../../base/errors.ts';
import {
  flagsError,
  LSMT_BLOCK_BYTES,
  LSMT_DATA_SECTOR,
  LSMT_ENTRY_BYTES,
  LSMT_PADDING_LBA,
  parseLsmtBlock,
  type LsmtBlock,
} from './format.ts';
import { decodeEntry, indexWords, mappedError, type LsmtEntryColumns } from './index-entries.ts';
import { replayLog } from './log-replay.ts';
import { refuseUnfinishedResize } from './resize-journal.ts';
import {
  continuationOf,
  readPending,
  type PendingBatch,
  type PendingChanges,
} from './pending-file.ts';
import { readSidecar } from './sidecar.ts';
import { sparseColumns } from './sparse-columns.ts';
import type { UpperKind } from './upper-map.ts';

/** What a writable layer holds at the moment, sorted; entries map to sectors of its data file. */
export interface LsmtUpper extends LsmtEntryColumns {
  /** The data file. */
  readonly name: string;
  readonly kind: UpperKind;
  readonly uuid: string | null;
  readonly parentUuid: string | null;
  /** 0 when the layer takes its size from the lower below it. */
  readonly virtualSizeBytes: number;
  readonly log: UpperLog;
}

/** What the log was read from: an append-only layer's index file, or a sparse layer's sidecar. */
export interface UpperLog {
  /** Entries that count. */
  readonly entries: number;
  /** Where the next entry goes. */
  readonly endBytes: number;
  /** Frames of a sidecar. */
  readonly frames: number;
  /** What a crash left incomplete and was therefore dropped; null when nothing was. */
  readonly torn: string | null;
  /** What a process that was killed did not get to write down. */
  readonly changes: PendingChanges;
  /** Pending changes are left out, as another program has written the layer since. */
  readonly isPendingStale: boolean;
  /** A sparse layer that has a sidecar; without one, the original's rule says what it holds. */
  readonly hasSidecar: boolean;
}

const HEADER = 'LSMT header';
const READ_BYTES_MAX = 2 ** 30;
const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;

/**
 * Reads the index of a writable layer without changing it: replays the log of an append-only pair,
 * or finds the data ranges of a sparse file and asks its sidecar what they cannot tell (then
 * `indexPath` is not read). What a crash left incomplete at the end of the log is dropped.
 * Errors: as for a read-only layer, and those of the file system.
 */
export async function openUpper(dataPath: string, indexPath: string): Promise<LsmtUpper> {
  await refuseUnfinishedResize(dataPath);
  const data = await open(dataPath, 'r');
  try {
    return await readUpper(data, { data: dataPath, index: indexPath });
  } finally {
    await data.close();
  }
}

/** The UUID of a writable layer's data file, of which nothing but the header is looked at. */
export async function readUpperUuid(dataPath: string): Promise<string | null> {
  const data = await open(dataPath, 'r');
  try {
    return (await readHeader(data, dataPath)).uuid;
  } finally {
    await data.close();
  }
}

/** As openUpper, of a data file that is open already. */
export async function readUpper(
  data: FileHandle,
  paths: { data: string; index: string },
): Promise<LsmtUpper> {
  const header = await readHeader(data, paths.data);
  const { uuid, parentUuid } = header;
  // Before the log, as they go from there to the log of a device that is in use.
  const batches = await readPending(paths.data, uuid);
  const { size } = await data.stat();
  if (header.isSparse) {
    const { virtualSizeBytes } = header;
    const sidecar = await readSidecar(paths.data, uuid);
    // What an interrupted sealing put behind the disk is none of it.
    const diskEnd = virtualSizeBytes === 0 ? size : LSMT_BLOCK_BYTES + virtualSizeBytes;
    const logged = sidecar?.words ?? new Uint32Array(0);
    const pending = pendingFacts(logged, sidecar === null ? [] : batches, Infinity);
    const words = sidecar === null ? null : joined(logged, pending.changes.pending);
    const columns = await sparseColumns(data, Math.min(size, diskEnd), paths.data, {
      words,
      recent: pending.changes.recent,
    });
    const log = {
      entries: logged.length / ENTRY_WORDS,
      endBytes: sidecar?.endBytes ?? 0,
      frames: sidecar?.frames ?? 0,
      torn: (sidecar?.tornBytes ?? 0) === 0 ? null : `${sidecar?.tornBytes} bytes of the sidecar`,
      hasSidecar: sidecar !== null,
      ...pending,
    };
    return {
      ...columns,
      name: paths.data,
      kind: 'sparse',
      uuid,
      parentUuid,
      virtualSizeBytes,
      log,
    };
  }
  const log = await readLog(paths.index, Math.floor(size / SECTOR_BYTES));
  const { virtualSizeBytes } = log.header;
  const pending = pendingFacts(log.words, batches, Math.floor(size / SECTOR_BYTES));
  const columns = replayLog(joined(log.words, pending.changes.pending), paths.index);
  const facts = {
    entries: log.words.length / ENTRY_WORDS,
    endBytes: LSMT_BLOCK_BYTES + log.words.byteLength,
    frames: 0,
    torn: log.torn,
    hasSidecar: false,
    ...pending,
  };
  return {
    ...columns,
    name: paths.data,
    kind: 'append',
    uuid,
    parentUuid,
    virtualSizeBytes,
    log: facts,
  };
}

const NO_CHANGES: PendingChanges = { recent: new Uint32Array(0), pending: new Uint32Array(0) };

/** `sectorEnd` as in readLog: where a pending entry leads behind it, the data file is another. */
function pendingFacts(
  log: Uint32Array,
  batches: PendingBatch[],
  sectorEnd: number,
): Pick<UpperLog, 'changes' | 'isPendingStale'> {
  const changes = continuationOf(log, batches);
  if (changes === null || !allWithin(changes.pending, sectorEnd)) {
    return { changes: NO_CHANGES, isPendingStale: true };
  }
  return { changes, isPendingStale: false };
}

function allWithin(words: Uint32Array, sectorEnd: number): boolean {
  for (let at = 0; at < words.length; at += ENTRY_WORDS) {
    const { sectors, mapped, zeroed } = decodeEntry(words, at);
    if (mapped + (zeroed ? 0 : sectors) > sectorEnd) return false;
  }
  return true;
}

function joined(log: Uint32Array, pending: Uint32Array): Uint32Array {
  if (pending.length === 0) return log;
  const words = new Uint32Array(log.length + pending.length);
  words.set(log);
  words.set(pending, log.length);
  return words;
}

async function readHeader(data: FileHandle, name: string): Promise<LsmtBlock> {
  const header = parseLsmtBlock(await readUpTo(data, 0, LSMT_BLOCK_BYTES), name, HEADER);
  if (header.isHeader && header.isData) return header;
  throw flagsError(name, HEADER, 'the header of a data file', header);
}

/** `sectorEnd` is where the data file ends. */
async function readLog(
  path: string,
  sectorEnd: number,
): Promise<{ header: LsmtBlock; words: Uint32Array; torn: string | null }> {
  const file = await open(path, 'r');
  try {
    const { size } = await file.stat();
    const header = parseLsmtBlock(await readUpTo(file, 0, LSMT_BLOCK_BYTES), path, HEADER);
    if (!header.isHeader || header.isData || header.isSealed) {
      throw flagsError(path, HEADER, 'the header of an unsealed index file', header);
    }
    if (header.indexOffset !== LSMT_BLOCK_BYTES) {
      throw formatError('ERR_LSMT_INDEX', {
        name: path,
        structure: HEADER,
        expected: `entries that begin at ${LSMT_BLOCK_BYTES}`,
        found: String(header.indexOffset),
      });
    }
    const count = Math.floor((size - LSMT_BLOCK_BYTES) / LSMT_ENTRY_BYTES);
    if (count > upperLimits.logEntriesMax) {
      throw formatError('ERR_LSMT_ENTRIES', {
        name: path,
        structure: 'LSMT index file',
        expected: `at most ${upperLimits.logEntriesMax} entries`,
        found: String(count),
      });
    }
    const words = indexWords(await readUpTo(file, LSMT_BLOCK_BYTES, count * LSMT_ENTRY_BYTES));
    const whole = wholeEntries(words, sectorEnd, path);
    const dropped = words.length / ENTRY_WORDS - whole;
    const partBytes = (size - LSMT_BLOCK_BYTES) % LSMT_ENTRY_BYTES;
    const torn: string[] = [];
    if (dropped > 0) torn.push(`${dropped} entries whose data is not there`);
    if (partBytes > 0) torn.push(`${partBytes} bytes of an entry`);
    return {
      header,
      words: words.subarray(0, whole * ENTRY_WORDS),
      torn: torn.length === 0 ? null : `${torn.join(' and ')} at the end of the index file`,
    };
  } finally {
    await file.close();
  }
}

/**
 * How many entries there are up to where a crash cut the data file off: from the first that maps
 * past its end on, none may map to data before it. Otherwise the log is damaged: ERR_LSMT_MAPPED.
 */
function wholeEntries(words: Uint32Array, sectorEnd: number, name: string): number {
  let firstBad = -1;
  for (let at = 0; at < words.length; at += ENTRY_WORDS) {
    const { lba, sectors, mapped, zeroed } = decodeEntry(words, at);
    if (lba === LSMT_PADDING_LBA || sectors === 0) continue;
    const length = zeroed ? 0 : sectors;
    const isTooFar = mapped + length > sectorEnd;
    if (mapped < LSMT_DATA_SECTOR || (firstBad >= 0 && !zeroed && !isTooFar)) {
      const entry = firstBad >= 0 ? firstBad : at / ENTRY_WORDS;
      const bad = decodeEntry(words, entry * ENTRY_WORDS);
      throw mappedError(name, entry, bad.mapped, bad.zeroed ? 0 : bad.sectors, sectorEnd);
    }
    if (isTooFar && firstBad < 0) firstBad = at / ENTRY_WORDS;
  }
  return firstBad < 0 ? words.length / ENTRY_WORDS : firstBad;
}

async function readUpTo(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const take = Math.min(length - filled, READ_BYTES_MAX);
    const { bytesRead } = await file.read(bytes, filled, take, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
