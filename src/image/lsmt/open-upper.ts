import { open, type FileHandle } from 'node:fs/promises';
import { punchHole, tryLockFile } from '../../../native/file-space.ts';
import { mapGrowingFile, unmapWindow, type FileWindow } from '../../../native/memory-map.ts';
import { writeFileAtomic } from '../../base/atomic-file.ts';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import type { Logger } from '../../base/log.ts';
import { checkUpperSize, type UpperPaths } from './create-upper.ts';
import { LSMT_BLOCK_BYTES, LSMT_DATA_SECTOR, LSMT_ENTRY_BYTES } from './format.ts';
import { encodeEntry, type LsmtEntryColumns } from './index-entries.ts';
import { LogFile } from './log-file.ts';
import { replayLog } from './log-replay.ts';
import type { PendingFile } from './pending-file.ts';
import { isSealed } from './seal-upper.ts';
import { SectorMap } from './sector-map.ts';
import { SharedUpper } from './shared-upper.ts';
import { writeSidecar } from './sidecar.ts';
import type { UpperMap } from './upper-map.ts';
import { readUpper, type LsmtUpper } from './upper.ts';
import { UpperState } from './upper-state.ts';

// The steps that make a writable layer's files usable for writing.

const ENTRY_WORDS = LSMT_ENTRY_BYTES / 4;

/** A data file that nobody else writes, and what it holds. */
export interface LockedUpper {
  readonly data: FileHandle;
  readonly found: LsmtUpper;
}

/**
 * Opens a layer's data file, locks it and reads what the layer holds. Errors: ERR_UPPER_OPEN,
 * ERR_UPPER_BUSY, ERR_UPPER_SEALED, and those of openUpper.
 */
export async function lockUpper(paths: UpperPaths): Promise<LockedUpper> {
  const data = await openLocked(paths.data);
  try {
    const { size } = await data.stat();
    if (await isSealed(data, paths.data, size)) {
      throw new ReplaybdError(
        'ERR_UPPER_SEALED',
        `${paths.data}: is a sealed layer. Use it as a lower, and create a writable one on top.`,
        { errno: 'EROFS' },
      );
    }
    return { data, found: await readUpper(data, paths) };
  } catch (error) {
    await data.close();
    throw error;
  }
}

/** Opens a data file that nobody else has open for writing. ERR_UPPER_OPEN, ERR_UPPER_BUSY. */
export async function openLocked(path: string): Promise<FileHandle> {
  let data: FileHandle;
  try {
    data = await open(path, 'r+');
  } catch (error) {
    throw new ReplaybdError(
      'ERR_UPPER_OPEN',
      `${path}: cannot be opened for writing: ${messageOf(error)}`,
      { cause: error, errno: 'ENOENT' },
    );
  }
  if (tryLockFile(data.fd, path)) return data;
  await data.close();
  throw new ReplaybdError(
    'ERR_UPPER_BUSY',
    `${path}: another device or tool has this writable layer open. ` +
      'Detach it, or wait for it to end.',
    { errno: 'EBUSY' },
  );
}

/**
 * Cuts off what a crash left incomplete, writes down what was pending, gives a sparse layer the
 * sidecar that it lacks, and rewrites a log of which little counts any more.
 */
export async function repairUpper(
  { data, found }: LockedUpper,
  paths: UpperPaths,
  log: Logger,
): Promise<LogFile> {
  const { kind } = found;
  const { torn, entries, changes, isPendingStale, hasSidecar } = found.log;
  const { pending, recent } = changes;
  if (torn !== null) {
    log.warn({ upper: paths.data }, `${paths.data}: dropped ${torn}: it was never flushed`);
  }
  if (isPendingStale) {
    log.warn(
      { upper: paths.data },
      `${paths.data}: dropped pending changes: another program has written the layer since`,
    );
  }
  if (kind === 'append') {
    const { size } = await data.stat();
    if (size % SECTOR_BYTES !== 0) await data.truncate(size - (size % SECTOR_BYTES));
  }
  // No entry on disk may lead to data that is not there.
  if (pending.length > 0) await data.datasync();
  // A log that is rewritten is none that a killed process's changes continue: those come first.
  const isLong =
    recent.length === 0 && entries > upperLimits.logEntriesKept && entries > 2 * found.count;
  if (isLong || (kind === 'sparse' && !hasSidecar)) {
    if (kind === 'append') await rewriteIndex(paths.index, found);
    else await writeSidecar(paths.data, found.uuid, found);
    return await LogFile.open(paths, kind, (await readUpper(data, paths)).log);
  }
  const file = await LogFile.open(paths, kind, found.log);
  try {
    if (pending.length > 0) {
      await file.append(pending);
      log.info(
        { upper: paths.data, changes: pending.length / ENTRY_WORDS },
        `${paths.data}: wrote down what was pending when the last process ended`,
      );
    }
    if (recent.length > 0) await file.sync();
    if (kind === 'sparse') await punchZeroed(data, recent, paths.data);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Durably gives back the blocks of what the last entries call zeroed. */
async function punchZeroed(data: FileHandle, recent: Uint32Array, name: string): Promise<void> {
  const { count, start, sectors, zeroed } = replayLog(recent, name);
  if (!zeroed.includes(1)) return;
  for (let row = 0; row < count; row += 1) {
    if (zeroed[row] === 0) continue;
    const offset = (LSMT_DATA_SECTOR + start[row]) * SECTOR_BYTES;
    punchHole(data.fd, offset, sectors[row] * SECTOR_BYTES);
  }
  await data.datasync();
}

/** The same log, with those entries only that count. */
async function rewriteIndex(path: string, entries: LsmtEntryColumns): Promise<void> {
  const file = await open(path, 'r');
  try {
    const header = new Uint8Array(LSMT_BLOCK_BYTES);
    await file.read(header, 0, LSMT_BLOCK_BYTES, 0);
    const bytes = new Uint8Array(LSMT_BLOCK_BYTES + entries.count * LSMT_ENTRY_BYTES);
    bytes.set(header);
    const words = new Uint32Array(bytes.buffer);
    for (let row = 0; row < entries.count; row += 1) {
      const entry = {
        lba: entries.start[row],
        sectors: entries.sectors[row],
        mapped: entries.mapped[row],
        zeroed: entries.zeroed[row] === 1,
        tag: 0,
      };
      encodeEntry(entry, words, (LSMT_BLOCK_BYTES + row * LSMT_ENTRY_BYTES) / 4);
    }
    await writeFileAtomic(path, bytes, (await file.stat()).mode);
  } finally {
    await file.close();
  }
}

/** The shared buffers of a layer, filled with what it holds, and the mapping of its data file. */
export async function shareUpper(
  { data, found }: LockedUpper,
  virtualSizeBytes: number,
  pending: PendingFile,
): Promise<{ map: UpperMap; shared: SharedUpper; window: FileWindow }> {
  const { kind, name } = found;
  checkUpperSize(name, virtualSizeBytes);
  const { size } = await data.stat();
  const window = mapGrowingFile(data.fd, windowBytes(kind, virtualSizeBytes), name);
  try {
    if (window.sizeBytes < size) {
      throw new ReplaybdError(
        'ERR_UPPER_SIZE',
        `${name}: expected a data file of at most ${window.sizeBytes} bytes, found ${size}`,
      );
    }
    const map: UpperMap = {
      kind,
      name,
      virtualSizeBytes,
      fd: data.fd,
      address: window.address,
      mappedBytes: window.sizeBytes,
      ...SectorMap.allocate(virtualSizeBytes),
      state: UpperState.allocate(),
      pendingFd: pending.fd,
      log: new SharedArrayBuffer(upperLimits.pendingEntriesMax * LSMT_ENTRY_BYTES),
    };
    const shared = new SharedUpper(map);
    shared.state.generation = pending.generation;
    shared.state.append = Math.max(Math.ceil(size / SECTOR_BYTES), LSMT_DATA_SECTOR);
    shared.state.end = shared.state.append;
    fillMap(shared.sectors, found, virtualSizeBytes);
    return { map, shared, window };
  } catch (error) {
    unmapWindow(window);
    throw error;
  }
}

/** Room for all that the data file may become. */
function windowBytes(kind: LsmtUpper['kind'], virtualSizeBytes: number): number {
  if (kind === 'append') return (upperLimits.dataSectorsMax + 2) * SECTOR_BYTES;
  const granularity = 2 ** 20;
  return Math.ceil((LSMT_BLOCK_BYTES + virtualSizeBytes) / granularity) * granularity;
}

function fillMap(map: SectorMap, entries: LsmtUpper, virtualSizeBytes: number): void {
  const lbaEnd = virtualSizeBytes / SECTOR_BYTES;
  for (let row = 0; row < entries.count; row += 1) {
    const lba = entries.start[row];
    const sectors = Math.min(entries.sectors[row], lbaEnd - lba);
    if (sectors <= 0) break;
    const isZeroed = entries.zeroed[row] === 1;
    if (!map.prepare(lba, sectors, isZeroed)) {
      throw new ReplaybdError(
        'ERR_UPPER_FULL',
        `${entries.name}: its index would need more than ${upperLimits.leavesMax} leaves. ` +
          'Commit the layer.',
        { errno: 'ENOSPC' },
      );
    }
    if (isZeroed) map.setZeroed(lba, sectors);
    else map.setData(lba, sectors, entries.mapped[row]);
  }
}
