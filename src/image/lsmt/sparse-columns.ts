import type { FileHandle } from 'node:fs/promises';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { LSMT_BLOCK_BYTES, LSMT_DATA_SECTOR } from './format.ts';
import type { LsmtEntryColumns } from './index-entries.ts';
import { PieceColumns, replayLog } from './log-replay.ts';
import { overlayLayers } from './overlay.ts';

const SCAN_BYTES = 1024 * 1024;
const ZERO_SECTOR = Buffer.alloc(SECTOR_BYTES);

/** The log of a sparse layer. */
export interface SparseLog {
  /** All entries, the last ones included; null without a sidecar. */
  words: Uint32Array | null;
  /** The last ones, which alone say what their sectors are. */
  recent: Uint32Array;
}

/**
 * What a sparse layer of `sizeBytes` holds. Without a sidecar that is what its file system stores, as
 * the original has it. With one, it is what the log says; and what the log does not call data, but is
 * stored and not zero, is data all the same: a write that was not flushed, or one by the original.
 * Where recent entries call it zeroed, though, the file system has only not been told yet.
 */
export async function sparseColumns(
  data: FileHandle,
  sizeBytes: number,
  name: string,
  { words, recent }: SparseLog,
): Promise<LsmtEntryColumns> {
  if (words === null) {
    const pieces = new PieceColumns();
    for (const { lba, sectors } of storedRuns(data.fd, sizeBytes, name)) {
      pushData(pieces, lba, sectors);
    }
    return pieces.inOrder();
  }
  const sectorEnd = Math.floor(sizeBytes / SECTOR_BYTES) - LSMT_DATA_SECTOR;
  const logged = inPlace(replayLog(words, name), sectorEnd);
  const found = new PieceColumns();
  const runs = unloggedRuns(logged, storedRuns(data.fd, sizeBytes, name));
  for (const { lba, sectors } of runs) await findWritten(data, lba, sectors, found);
  const latest = inPlace(replayLog(recent, name), sectorEnd);
  const layers = [logged, found.inOrder(), latest];
  const { count, start, sectors, mapped, zeroed } = overlayLayers(layers);
  return { count, start, sectors, mapped, zeroed, hasTags: false };
}

interface SectorRun {
  lba: number;
  sectors: number;
}

/** What the file system stores, in sectors of the disk. */
function* storedRuns(fd: number, sizeBytes: number, name: string): Generator<SectorRun> {
  let position = LSMT_BLOCK_BYTES;
  while (position < sizeBytes) {
    const range = nextDataRange(fd, position, name);
    if (range === null) return;
    const sector = Math.floor(range.offset / SECTOR_BYTES);
    const sectors = Math.floor(range.length / SECTOR_BYTES);
    if (sectors > 0) yield { lba: sector - LSMT_DATA_SECTOR, sectors };
    position = range.offset + range.length;
  }
}

/** Entries as far as they lie in the file, mapped to their place in it. */
function inPlace(entries: LsmtEntryColumns, sectorEnd: number): LsmtEntryColumns {
  const pieces = new PieceColumns();
  for (let row = 0; row < entries.count; row += 1) {
    const lba = entries.start[row];
    const sectors = Math.min(entries.sectors[row], sectorEnd - lba);
    if (sectors > 0) pieces.push(lba, sectors, lba + LSMT_DATA_SECTOR, entries.zeroed[row] === 1);
  }
  return pieces.inOrder();
}

/** The parts of `stored` that `logged` does not call data. */
function* unloggedRuns(
  logged: LsmtEntryColumns,
  stored: Iterable<SectorRun>,
): Generator<SectorRun> {
  let row = 0;
  for (const { lba, sectors } of stored) {
    const end = lba + sectors;
    let at = lba;
    for (; row < logged.count && logged.start[row] < end; row += 1) {
      const rowEnd = logged.start[row] + logged.sectors[row];
      if (logged.zeroed[row] === 0) {
        if (logged.start[row] > at) yield { lba: at, sectors: logged.start[row] - at };
        at = Math.max(at, rowEnd);
      }
      // The next run may begin within this entry.
      if (rowEnd > end) break;
    }
    if (at < end) yield { lba: at, sectors: end - at };
  }
}

/** Finds the sectors of a run that are not zero. */
async function findWritten(
  data: FileHandle,
  lba: number,
  sectors: number,
  found: PieceColumns,
): Promise<void> {
  const buffer = Buffer.alloc(Math.min(SCAN_BYTES, sectors * SECTOR_BYTES));
  let runStart = -1;
  for (let done = 0; done < sectors; done += buffer.length / SECTOR_BYTES) {
    const position = (LSMT_DATA_SECTOR + lba + done) * SECTOR_BYTES;
    const wanted = Math.min(buffer.length, (sectors - done) * SECTOR_BYTES);
    const { bytesRead } = await data.read(buffer, 0, wanted, position);
    for (let from = 0; from < bytesRead; from += SECTOR_BYTES) {
      const sector = lba + done + from / SECTOR_BYTES;
      const isZero = buffer.compare(ZERO_SECTOR, 0, SECTOR_BYTES, from, from + SECTOR_BYTES) === 0;
      if (!isZero && runStart < 0) runStart = sector;
      if (isZero && runStart >= 0) {
        pushData(found, runStart, sector - runStart);
        runStart = -1;
      }
    }
    if (bytesRead < wanted) break;
  }
  if (runStart >= 0) pushData(found, runStart, lba + sectors - runStart);
}

function pushData(pieces: PieceColumns, lba: number, sectors: number): void {
  const stepMax = lsmtLimits.segmentSectorsMax;
  for (let done = 0; done < sectors; done += stepMax) {
    const part = Math.min(stepMax, sectors - done);
    pieces.push(lba + done, part, lba + done + LSMT_DATA_SECTOR, false);
  }
}
