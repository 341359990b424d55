import { existsSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join, resolve, sep } from 'node:path';
import { systemClock, type Clock } from '../../base/clock.ts';
import { codeOf, messageOf } from '../../base/errors.ts';
import { silentLogger, type Logger } from '../../base/log.ts';
import { BlockingThread } from '../../../native/blocking-thread.ts';
import { listLoops, type AttachedLoop } from '../../../native/loop.ts';
import { unmountFlags } from '../../../native/mount.ts';
import { readMountTable, type MountEntry } from './mount-table.ts';
import { isOwnerGone, isProcessGone } from './owner.ts';
import { defaultRuntimeDirectory, DEVICE_FILE } from './runtime-directory.ts';

/**
 * A mount whose server is gone answers at once, where the machine has time for it; one that does not
 * in all this time has a server.
 */
const PROBE_MS_MAX = 15_000;

export interface RecoverOptions {
  clock?: Clock;
  log?: Logger;
}

/**
 * Removes what killed runs left in a runtime directory: mounted file systems, loop devices, FUSE
 * mounts, directories. A mount is stale when the process that served it is gone and its file says
 * that it is not connected. Returns the stale files. Never throws for one that resists; the log
 * says why.
 */
export async function recoverStale(
  directory: string = defaultRuntimeDirectory(),
  options: RecoverOptions = {},
): Promise<string[]> {
  const { clock = systemClock, log = silentLogger } = options;
  const inside = resolve(directory) + sep;
  const recovered: string[] = [];
  const mounts = readMountTable();
  for (const entry of mounts) {
    if (entry.type !== 'fuse.replaybd' || !entry.target.startsWith(inside)) continue;
    if (!isOwnerGone(entry.source)) continue;
    const thread = new BlockingThread();
    try {
      if (!(await isDisconnected(thread, entry.target, clock))) continue;
      await remove(thread, entry, mounts);
      recovered.push(entry.target);
    } catch (error) {
      log.warn({ err: error }, `${entry.target}: cannot remove a stale mount: ${messageOf(error)}`);
    } finally {
      thread.close();
    }
  }
  removeUnmounted(directory);
  return recovered;
}

/** Directories of runs that were killed before they mounted, or that somebody else unmounted. */
function removeUnmounted(root: string): void {
  if (!existsSync(root)) return;
  const mounted = readMountTable().map((entry) => entry.target);
  for (const name of readdirSync(root)) {
    const pid = /^(\d+)-/.exec(name)?.[1];
    if (pid === undefined || !isProcessGone(Number(pid))) continue;
    const directory = resolve(root, name);
    if (!mounted.includes(join(directory, DEVICE_FILE))) rmSync(directory, { recursive: true });
  }
}

async function isDisconnected(
  thread: BlockingThread,
  path: string,
  clock: Clock,
): Promise<boolean> {
  const timer = new AbortController();
  const answer = thread.call('probeFilesystem', path).then(
    () => false,
    (error: unknown) => codeOf(error) === 'ERR_ENOTCONN',
  );
  const late = clock.sleep(PROBE_MS_MAX, timer.signal).then(
    () => false,
    () => false,
  );
  const disconnected = await Promise.race([answer, late]);
  timer.abort();
  return disconnected;
}

/** Top down: what is mounted from the loop device or the file itself, the loop, the file. */
async function remove(
  thread: BlockingThread,
  stale: MountEntry,
  mounts: readonly MountEntry[],
): Promise<void> {
  const loopNumbers = loopsOf(stale.target).map((loop) => loop.deviceNumber);
  const users = mounts.filter(
    (entry) =>
      loopNumbers.includes(entry.deviceNumber) ||
      (entry.source === stale.target && entry.type !== stale.type),
  );
  for (const user of users.reverse()) {
    await thread.call('unmount', user.target, unmountFlags.detach);
  }
  // Most detach by themselves with their last user; their numbers may be in use again.
  for (const loop of loopsOf(stale.target)) await thread.call('clearLoop', loop.device);
  await thread.call('unmount', stale.target, unmountFlags.detach);
  rmSync(dirname(stale.target), { recursive: true, force: true });
}

function loopsOf(backingFile: string): AttachedLoop[] {
  return listLoops().filter((loop) => loop.backingFile === backingFile);
}
