import { randomUUID } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tryLockFile } from '../../../native/file-space.ts';
import { codeOf } from '../../base/errors.ts';

const LOCK_SUFFIX = '.lock';
const FLAGS = constants.O_RDWR | constants.O_CREAT;

/** A folder of one run, gone afterwards. */
export interface WorkFolder extends AsyncDisposable {
  path: string;
}

/** In the folder for temporary files, or in `parent`. */
export async function temporaryWorkFolder(parent = tmpdir()): Promise<WorkFolder> {
  const path = await mkdtemp(join(parent, '.replaybd-convert-'));
  const dispose = () => rm(path, { recursive: true, force: true });
  return { path, [Symbol.asyncDispose]: dispose };
}

/**
 * In a folder that runs share. Each holds a lock while it lives; what runs that were killed left
 * behind is removed here.
 */
export async function lockedWorkFolder(parent: string): Promise<WorkFolder> {
  await mkdir(parent, { recursive: true });
  await removeAbandoned(parent);
  for (;;) {
    const path = join(parent, randomUUID());
    const lockFd = openLock(`${path}${LOCK_SUFFIX}`);
    // Another run may take a lock file for an abandoned one before it is locked.
    if (lockFd === null) continue;
    await mkdir(path);
    return {
      path,
      [Symbol.asyncDispose]: async () => {
        await rm(path, { recursive: true, force: true });
        await rm(`${path}${LOCK_SUFFIX}`, { force: true });
        closeSync(lockFd);
      },
    };
  }
}

async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.endsWith(LOCK_SUFFIX)) continue;
    const lock = join(parent, name);
    const lockFd = openLock(lock);
    if (lockFd === null) continue;
    await rm(lock.slice(0, -LOCK_SUFFIX.length), { recursive: true, force: true });
    await rm(lock, { force: true });
    closeSync(lockFd);
  }
}

/** A lock file's descriptor, locked; null when another has it, or it is gone by now. */
function openLock(path: string): number | null {
  const fd = openSync(path, FLAGS, 0o600);
  try {
    if (tryLockFile(fd, path) && isStillAt(fd, path)) return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  closeSync(fd);
  return null;
}

function isStillAt(fd: number, path: string): boolean {
  try {
    return statSync(path).ino === fstatSync(fd).ino;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return false;
    throw error;
  }
}
