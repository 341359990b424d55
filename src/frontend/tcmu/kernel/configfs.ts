import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { codeOf, messageOf, ReplaybdError } from '../../../base/errors.ts';
import { tcmuLimits } from '../../../base/limits.ts';
import type { BlockingThread } from '../../../../native/blocking-thread.ts';

/** Where the kernel shows itself. A test has another. */
export const SYSTEM_ROOT = '/sys';

/** Where the kernel's targets are configured. */
export const targetFolder = `${SYSTEM_ROOT}/kernel/config/target`;

/** A folder of configfs. One that is there is kept. Errors: ERR_TCMU_CONFIGFS. */
export function makeFolder(path: string): void {
  try {
    mkdirSync(path);
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return;
    throw configfsError(`${path}: cannot be made`, error);
  }
}

/**
 * False for a folder that is being removed, too. It is seen until its removal has ended, without links;
 * whoever looks into it waits for that, and the removal may wait for an answer of ours.
 */
export function hasFolder(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.nlink ?? 0) > 0;
}

/** What an attribute says, without the line's end. */
export function readAttribute(path: string): string {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw configfsError(`${path}: cannot be read`, error);
  }
}

/** On a thread of its own: the kernel may ask the device before it answers. */
export async function writeAttribute(
  thread: BlockingThread,
  path: string,
  text: string,
): Promise<void> {
  try {
    await thread.call('writeAttribute', path, text);
  } catch (error) {
    throw configfsError(`${path}: refused ${JSON.stringify(text)}`, error);
  }
}

/** Takes something away that may be gone already. */
export async function removeIfThere(
  thread: BlockingThread,
  call: 'rmdir' | 'unlink',
  path: string,
): Promise<void> {
  try {
    await thread.call(call, path);
  } catch (error) {
    if (codeOf(error) === 'ERR_ENOENT') return;
    throw configfsError(`${path}: cannot be removed`, error);
  }
}

/** Throws ERR_TCMU_CONFIGFS, with what to do, where the kernel offers no targets. */
export function requireTargets(): void {
  if (existsSync(`${targetFolder}/core`)) return;
  throw new ReplaybdError(
    'ERR_TCMU_CONFIGFS',
    `${targetFolder}/core: not found. As root: modprobe target_core_user && modprobe tcm_loop && ` +
      `mount -t configfs configfs ${dirname(targetFolder)} (unless it is mounted)`,
    { errno: 'ENOENT' },
  );
}

/** A name for a folder, of an id of any length: a long one ends in a digest of all of it. */
export function folderName(prefix: string, id: string): string {
  const name = prefix + id.replaceAll(/[^A-Za-z0-9_.-]/g, '_');
  if (name === prefix + id && name.length <= tcmuLimits.folderNameBytesMax) return name;
  return `${name.slice(0, tcmuLimits.folderNameBytesMax)}-${hexDigest(id).slice(0, 16)}`;
}

/** 64 hexadecimal digits that stand for an id. */
export function hexDigest(id: string): string {
  return createHash('sha256').update(id).digest('hex');
}

function configfsError(what: string, cause: unknown): ReplaybdError {
  return new ReplaybdError('ERR_TCMU_CONFIGFS', `${what}: ${messageOf(cause)}`, { cause });
}
