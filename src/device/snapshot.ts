import { randomUUID } from 'node:crypto';
import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { lsmtLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { openLocalBlob } from '../blob/local-blob.ts';
import { createUpper, upperFiles, type UpperPaths } from '../image/lsmt/create-upper.ts';
import { openLocked } from '../image/lsmt/open-upper.ts';
import { appendSeal, isSealed } from '../image/lsmt/seal-upper.ts';
import { sidecarPath } from '../image/lsmt/sidecar.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { readUpper, readUpperUuid } from '../image/lsmt/upper.ts';
import { openWritableUpper, type WritableUpper } from '../image/lsmt/writable-upper.ts';
import { stackOnto } from '../image/stack.ts';
import { advanceConfig, configuredUpper } from './snapshot-config.ts';
import {
  readJournal,
  removeFile,
  removeJournal,
  writeJournal,
  type SnapshotJournal,
} from './snapshot-journal.ts';
import type { WritableDevice } from './writable-device.ts';

/** The new writable layer's files, which must not exist. */
export interface SnapshotOptions extends UpperPaths {
  /** The present layer's kind unless told otherwise. */
  kind?: UpperKind;
  log?: Logger;
  /** Called after each step; tests stop the process there. */
  onStep?: (step: SnapshotStep) => void | Promise<void>;
}

/** What has just been done. */
export type SnapshotStep =
  | 'flushed'
  | 'prepared'
  | 'created'
  | 'shut-out'
  | 'switched'
  | 'sealed'
  | 'configured'
  | 'cleaned';

export interface SnapshotReport {
  /** The former writable layer's data file, now the topmost lower. */
  sealed: string;
  upper: UpperPaths;
  /** Entries of the sealed layer's index. */
  entries: number;
  /** How long writes had to wait, and how much of that was for what they wrote to be durable. */
  pauseMs: number;
  flushMs: number;
}

/** See WritableDevice.snapshot. */
export async function takeSnapshot(
  device: WritableDevice,
  configPath: string,
  options: SnapshotOptions,
): Promise<SnapshotReport> {
  const onStep = options.onStep ?? (() => undefined);
  const { upper: former } = device;
  const upper = { data: resolve(options.data), index: resolve(options.index) };
  const old = { data: resolve(former.paths.data), index: resolve(former.paths.index) };
  await refuseExisting(configPath, upper);
  await refuseTooMany(former);
  await former.flush();
  await onStep('flushed');

  const journal: SnapshotJournal = {
    phase: 'prepare',
    old: { ...old, dataEndBytes: former.dataEndBytes },
    new: { ...upper, uuid: randomUUID().toUpperCase() },
  };
  await writeJournal(configPath, journal);
  const switched = await goOn(device, configPath, journal, { ...options, ...upper, onStep });
  try {
    await onStep('switched');
    const entries = await former.appendSeal();
    await onStep('sealed');
    await complete(configPath, journal, onStep);
    const thawed = stackSealed(device, old.data);
    void Promise.all([switched.released, (await thawed).released]).then(() =>
      device.closeFormer(former),
    );
    return {
      sealed: old.data,
      upper,
      entries,
      pauseMs: switched.pauseMs,
      flushMs: switched.flushMs,
    };
  } catch (error) {
    throw new ReplaybdError(
      'ERR_SNAPSHOT_INCOMPLETE',
      `${configPath}: the snapshot is in effect, but not finished: ${messageOf(error)}. ` +
        'It is finished when the image is opened again.',
      { cause: error },
    );
  }
}

/** The steps during which nothing has happened yet, and the one by which it has. */
async function goOn(
  device: WritableDevice,
  configPath: string,
  journal: SnapshotJournal,
  options: SnapshotOptions & Required<Pick<SnapshotOptions, 'onStep'>>,
): Promise<{ released: Promise<void>; pauseMs: number; flushMs: number }> {
  const { onStep } = options;
  const { upper: former } = device;
  let next: WritableUpper | null = null;
  let isShutOut = false;
  try {
    await onStep('prepared');
    next = await createNext(former, options, journal.new.uuid);
    await onStep('created');
    const startedMs = performance.now();
    await former.shutOut();
    isShutOut = true;
    await former.flush();
    const flushMs = performance.now() - startedMs;
    await onStep('shut-out');
    journal.old.dataEndBytes = former.dataEndBytes;
    await writeJournal(configPath, { ...journal, phase: 'switch' });
    const released = device.freeze(next);
    return { released, pauseMs: performance.now() - startedMs, flushMs };
  } catch (error) {
    if (isShutOut) former.letIn();
    await next?.close();
    // It may say already that the device has gone on.
    await writeJournal(configPath, journal);
    await undo(configPath, journal, options.log);
    throw error;
  }
}

/** Has the device read the sealed layer as it reads any lower. */
async function stackSealed(
  device: WritableDevice,
  path: string,
): Promise<{ released: Promise<void> }> {
  const blob = await openLocalBlob(path);
  try {
    return { released: device.thaw(await stackOnto(device.stack, blob), blob) };
  } catch (error) {
    await blob.close();
    throw error;
  }
}

/**
 * Completes or undoes a snapshot that was interrupted. To be called before a configuration is read;
 * does nothing when there was none. Errors: ERR_UPPER_BUSY while the device that takes it lives,
 * ERR_SNAPSHOT_JOURNAL, ERR_CONFIG_*, and those of the file system.
 */
export async function recoverSnapshot(
  configPath: string,
  log: Logger,
): Promise<'none' | 'undone' | 'completed'> {
  const journal = await readJournal(configPath);
  if (journal === null) return 'none';
  const { old } = journal;
  const data = await openLocked(old.data);
  try {
    if (journal.phase === 'prepare') {
      await undo(configPath, journal, log);
      log.warn({ config: configPath }, `${configPath}: undid a snapshot that had not happened yet`);
      return 'undone';
    }
    const { size } = await data.stat();
    const isDone = (await configuredUpper(configPath)) === journal.new.data;
    if (!isDone && !(await isSealed(data, old.data, size))) {
      await appendSeal(data, old.data, old.dataEndBytes, await readUpper(data, old));
    }
    await complete(configPath, journal, () => undefined);
    log.warn({ config: configPath }, `${configPath}: completed a snapshot that was interrupted`);
    return 'completed';
  } finally {
    await data.close();
  }
}

/** The last steps, each of which may have been done before. */
async function complete(
  configPath: string,
  journal: SnapshotJournal,
  onStep: (step: SnapshotStep) => void | Promise<void>,
): Promise<void> {
  const { old, new: upper } = journal;
  await advanceConfig(configPath, old.data, { data: upper.data, index: upper.index });
  await onStep('configured');
  for (const path of upperFiles(old)) if (path !== old.data) await removeFile(path);
  await onStep('cleaned');
  await removeJournal(configPath);
}

/** Removes the new layer's files, if they are those that this snapshot created. */
async function undo(
  configPath: string,
  { new: upper }: SnapshotJournal,
  log: Logger | undefined,
): Promise<void> {
  if (!(await exists(upper.data))) return removeJournal(configPath);
  const uuid = await readUpperUuid(upper.data).catch(() => null);
  if (uuid === upper.uuid) {
    for (const path of upperFiles(upper).reverse()) await removeFile(path);
  } else {
    log?.warn({ upper: upper.data }, `${upper.data}: left, as no snapshot of ours created it`);
  }
  await removeJournal(configPath);
}

async function createNext(
  former: WritableUpper,
  { kind = former.kind, data, index, log }: SnapshotOptions,
  uuid: string,
): Promise<WritableUpper> {
  const { virtualSizeBytes, uuid: parentUuid } = former;
  await createUpper({ kind, data, index, virtualSizeBytes, uuid, parentUuid });
  return await openWritableUpper({ data, index }, log === undefined ? {} : { log });
}

/** A sealed layer has to be one that can be opened. */
async function refuseTooMany(upper: WritableUpper): Promise<void> {
  const { entriesMax } = lsmtLimits;
  if (upper.logEntries <= entriesMax / 4) return;
  // Half of what is possible: writes go on until the layer is sealed.
  const { count } = await upper.entries();
  if (count <= entriesMax / 2) return;
  throw new ReplaybdError(
    'ERR_SNAPSHOT_ENTRIES',
    `${upper.paths.data}: expected at most ${entriesMax / 2} entries in a layer to seal, ` +
      `found ${count}. Commit the layer instead.`,
    { errno: 'EINVAL' },
  );
}

async function refuseExisting(configPath: string, upper: UpperPaths): Promise<void> {
  if ((await readJournal(configPath)) !== null) {
    throw new ReplaybdError(
      'ERR_SNAPSHOT_INCOMPLETE',
      `${configPath}: the last snapshot is not written down yet. Detach and attach the device.`,
      { errno: 'EBUSY' },
    );
  }
  for (const path of [upper.data, upper.index, sidecarPath(upper.data)]) {
    if (!(await exists(path))) continue;
    throw new ReplaybdError(
      'ERR_UPPER_EXISTS',
      `${path}: exists already. Name files for the new writable layer that do not exist.`,
      { errno: 'EINVAL' },
    );
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
