import { open, type FileHandle } from 'node:fs/promises';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
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
import {
  decodeEntry,
  indexWords,
  mappedError,
  type LsmtEntry,
  type LsmtEntryColumns,
} from './index-entries.ts';
import { allocateSegments, overlayAll, type Segments } from './overlay.ts';

/** What a writable layer holds at the moment, sorted; entries map to sectors of its data file. */
export interface LsmtUpper extends LsmtEntryColumns {
  /** The data file. */
  readonly name: string;
  readonly kind: 'append' | 'sparse';
  readonly uuid: string | null;
  readonly parentUuid: string | null;
  /** 0 when the layer takes its size from the lower below it. */
  readonly virtualSizeBytes: number;
}

/**
 * Reads the index of a writable layer without changing it: replays the log of an append-only pair,
 * or finds the data ranges of a sparse file (then `indexPath` is not read). Discards of a sparse
 * layer leave no trace on disk: what they hid is visible again, as with the original.
 * Errors: as for a read-only layer, and those of the file system.
 */
export async function openUpper(dataPath: string, indexPath: string): Promise<LsmtUpper> {
  const data = await open(dataPath, 'r');
  try {
    const header = parseLsmtBlock(await readUpTo(data, 0, LSMT_BLOCK_BYTES), dataPath, HEADER);
    const { size } = await data.stat();
    if (!header.isHeader || !header.isData)
      throw flagsError(dataPath, HEADER, 'the header of a data file', header);
    const { uuid, parentUuid } = header;
    if (header.isSparse) {
      const columns = sparseColumns(data.fd, size, dataPath);
      const virtualSizeBytes = header.virtualSizeBytes;
      return { ...columns, name: dataPath, kind: 'sparse', uuid, parentUuid, virtualSizeBytes };
    }
    const log = await readLog(indexPath);
    const columns = replayLog(log.words, Math.floor(size / SECTOR_BYTES), indexPath);
    const virtualSizeBytes = log.header.virtualSizeBytes;
    return { ...columns, name: dataPath, kind: 'append', uuid, parentUuid, virtualSizeBytes };
  } finally {
    await data.close();
  }
}

const HEADER = 'LSMT header';

async function readLog(path: string): Promise<{ header: LsmtBlock; words: Uint32Array }> {
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
    if (count > lsmtLimits.entriesMax) {
      throw formatError('ERR_LSMT_ENTRIES', {
        name: path,
        structure: 'LSMT index file',
        expected: `at most ${lsmtLimits.entriesMax} entries`,
        found: String(count),
      });
    }
    const bytes = await readUpTo(file, LSMT_BLOCK_BYTES, count * LSMT_ENTRY_BYTES);
    return { header, words: indexWords(bytes) };
  } finally {
    await file.close();
  }
}

/** Entries in the order they were written; a later one covers what it overlaps. */
function replayLog(words: Uint32Array, sectorEnd: number, name: string): LsmtEntryColumns {
  const runs: Segments[] = [];
  let run: LsmtEntry[] = [];
  for (let at = 0; at < words.length; at += LSMT_ENTRY_BYTES / 4) {
    const entry = decodeEntry(words, at);
    if (entry.lba === LSMT_PADDING_LBA || entry.sectors === 0) continue;
    const length = entry.zeroed ? 0 : entry.sectors;
    if (entry.mapped < LSMT_DATA_SECTOR || entry.mapped + length > sectorEnd) {
      throw mappedError(name, (at * 4) / LSMT_ENTRY_BYTES, entry.mapped, length, sectorEnd);
    }
    // Ascending entries need no overlaying among themselves.
    const last = run.at(-1);
    if (last !== undefined && entry.lba < last.lba + last.sectors) {
      runs.push(segmentsOf(run));
      run = [];
    }
    run.push(entry);
  }
  runs.push(segmentsOf(run));
  return columnsOf(overlayAll(runs));
}

function sparseColumns(fd: number, sizeBytes: number, name: string): LsmtEntryColumns {
  const entries: LsmtEntry[] = [];
  let position = LSMT_BLOCK_BYTES;
  while (position < sizeBytes) {
    const range = nextDataRange(fd, position, name);
    if (range === null) break;
    const mapped = Math.floor(range.offset / SECTOR_BYTES);
    const sectors = Math.floor(range.length / SECTOR_BYTES);
    const stepMax = lsmtLimits.segmentSectorsMax;
    for (let done = 0; done < sectors; done += stepMax) {
      entries.push({
        lba: mapped - LSMT_DATA_SECTOR + done,
        sectors: Math.min(stepMax, sectors - done),
        mapped: mapped + done,
        zeroed: false,
        tag: 0,
      });
    }
    position = range.offset + range.length;
  }
  return columnsOf(segmentsOf(entries));
}

function segmentsOf(entries: readonly LsmtEntry[]): Segments {
  const segments = allocateSegments(entries.length);
  for (const entry of entries) {
    const row = segments.count;
    segments.start[row] = entry.lba;
    segments.sectors[row] = entry.sectors;
    segments.mapped[row] = entry.mapped;
    segments.zeroed[row] = entry.zeroed ? 1 : 0;
    segments.count = row + 1;
  }
  return segments;
}

function columnsOf(segments: Segments): LsmtEntryColumns {
  const { count, start, sectors, mapped, zeroed } = segments;
  return { count, start, sectors, mapped, zeroed, hasTags: false };
}

async function readUpTo(file: FileHandle, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  let filled = 0;
  while (filled < length) {
    const { bytesRead } = await file.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}
