import { unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder, writeFileAtomic } from '../base/atomic-file.ts';
import { readConfigFile } from '../base/config-file.ts';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import { configLimits } from '../base/limits.ts';
import type { UpperPaths } from '../image/lsmt/create-upper.ts';

/**
 * What a snapshot is about to do, in a file beside the configuration while it is being done:
 *
 *   prepare   the new upper is being created. To undo: remove it
 *   switch    the device has gone on to the new upper. To complete: seal the old one, name both in
 *             the configuration
 */
export interface SnapshotJournal {
  phase: 'prepare' | 'switch';
  old: UpperPaths & { dataEndBytes: number };
  new: UpperPaths & { uuid: string };
}

const VERSION = 1;

export function journalPath(configPath: string): string {
  return `${configPath}.snapshot`;
}

/** Durable when it returns. */
export async function writeJournal(configPath: string, journal: SnapshotJournal): Promise<void> {
  const text = JSON.stringify({ version: VERSION, ...journal });
  await writeFileAtomic(journalPath(configPath), Buffer.from(`${text}\n`));
}

export async function removeJournal(configPath: string): Promise<void> {
  await removeFile(journalPath(configPath));
  await syncFolder(dirname(configPath));
}

/** Null when no snapshot was interrupted. Errors: ERR_CONFIG_*, ERR_SNAPSHOT_JOURNAL. */
export async function readJournal(configPath: string): Promise<SnapshotJournal | null> {
  const name = journalPath(configPath);
  let text: string;
  try {
    text = await readConfigFile(name, configLimits.fileBytesMax);
  } catch (error) {
    if (error instanceof ReplaybdError && codeOf(error.cause) === 'ENOENT') return null;
    throw error;
  }
  const root = JsonObject.parse(text, name);
  const phase = root.word('phase', ['prepare', 'switch']);
  const [old, next] = [root.object('old'), root.object('new')];
  if (root.natural('version', 0) !== VERSION || phase === '' || old === null || next === null) {
    throw new ReplaybdError(
      'ERR_SNAPSHOT_JOURNAL',
      `${name}: expected the journal of an interrupted snapshot (version ${VERSION}), found ` +
        'something else. Use the version of replaybd that wrote it.',
    );
  }
  return {
    phase,
    old: { ...pathsOf(old), dataEndBytes: old.natural('dataEndBytes', 0) },
    new: { ...pathsOf(next), uuid: next.string('uuid') },
  };
}

/** Removes a file that may be gone already. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}

function pathsOf(paths: JsonObject): UpperPaths {
  return { data: paths.string('data'), index: paths.string('index') };
}
