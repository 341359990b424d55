import { randomUUID } from 'node:crypto';
import { access } from 'node:fs/promises';
import { resolve } from 'node:path';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { lsmtLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import { openLocalBlob } from '../blob/local-blob.ts';
import { openLayerBlob } from '../image/layer-blob.ts';
import { createUpper, type UpperPaths } from '../image/lsmt/create-upper.ts';
import type { LsmtEntryColumns } from '../image/lsmt/index-entries.ts';
import { layerFacts } from '../image/lsmt/layer.ts';
import { openLocked } from '../image/lsmt/open-upper.ts';
import { appendSeal, isSealed } from '../image/lsmt/seal-upper.ts';
import { sidecarPath } from '../image/lsmt/sidecar.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { readUpper, readUpperUuid } from '../image/lsmt/upper.ts';
import { openWritableUpper, type WritableUpper } from '../image/lsmt/writable-upper.ts';
import { stackOnto, type StackLayer } from '../image/stack.ts';
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
  await former.flush();
  await onStep('flushed');

  const uuid = randomUUID().toUpperCase();
  const journal: SnapshotJournal = {
    phase: 'prepare',
    old: { ...old, dataEndBytes: former.dataEndBytes },
    new: { ...upper, uuid },
  };
  await writeJournal(configPath, journal);
  let next: WritableUpper | null = null;
  let isShutOut = false;
  let pausedMs = 0;
  let flushMs = 0;
  let released: Promise<void>;
  try {
    await onStep('prepared');
    next = await createNext(former, { ...options, ...upper }, uuid);
    await onStep('created');
    pausedMs = performance.now();
    isShutOut = true;
    await former.shutOut();
    await former.flush();
    flushMs = performance.now() - pausedMs;
    await onStep('shut-out');
    const { layer, entries } = await layerOf(former);
    const switching = { ...journal, phase: 'switch' as const };
    switching.old.dataEndBytes = former.dataEndBytes;
    try {
      const stack = stackOnto(device.stack, layer, entries);
      await writeJournal(configPath, switching);
      released = device.replace(stack, next, layer.blob);
    } catch (error) {
      await layer.blob.close();
      throw error;
    }
  } catch (error) {
    if (isShutOut) former.letIn();
    await next?.close();
    // It may say already that the device has gone on.
    await writeJournal(configPath, journal);
    await undo(configPath, journal, options.log);
    throw error;
  }
  const pauseMs = performance.now() - pausedMs;
  try {
    await onStep('switched');
    const entries = await former.appendSeal();
    await onStep('sealed');
    await complete(configPath, journal, onStep);
    return { sealed: old.data, upper, entries, pauseMs, flushMs };
  } catch (error) {
    throw new ReplaybdError(
      'ERR_SNAPSHOT_INCOMPLETE',
      `${configPath}: the snapshot is in effect, but not written down: ${messageOf(error)}. ` +
        'It is completed when the image is opened again.',
      { cause: error },
    );
  } finally {
    void released.then(() => device.closeFormer(former));
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
  await removeFile(old.index);
  await removeFile(sidecarPath(old.data));
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
    for (const path of [upper.index, sidecarPath(upper.data), upper.data]) await removeFile(path);
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

/** A layer that nobody writes any more, as a lower: its data file, and what its index says now. */
async function layerOf(
  upper: WritableUpper,
): Promise<{ layer: StackLayer; entries: LsmtEntryColumns }> {
  const entries = upper.heldEntries();
  if (entries.count > lsmtLimits.entriesMax) {
    throw new ReplaybdError(
      'ERR_SNAPSHOT_ENTRIES',
      `${upper.paths.data}: expected at most ${lsmtLimits.entriesMax} entries in a sealed layer, ` +
        `found ${entries.count}. Commit the layer instead.`,
      { errno: 'EINVAL' },
    );
  }
  const blob = await openLocalBlob(upper.paths.data);
  try {
    const container = await openLayerBlob(blob);
    const { kind, uuid, parentUuid, virtualSizeBytes } = upper;
    const facts = layerFacts(
      { kind: kind === 'sparse' ? 'sealed-sparse' : 'sealed', uuid, parentUuid, virtualSizeBytes },
      entries,
    );
    const lsmt = { name: blob.name, facts, metadataRanges: [] };
    return { layer: { blob, container, lsmt, metadataRanges: container.metadataRanges }, entries };
  } catch (error) {
    await blob.close();
    throw error;
  }
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
