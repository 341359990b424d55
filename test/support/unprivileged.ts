import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { packageRoot } from '../../src/base/package-root.ts';
import type { CliOptions } from './cli.ts';
import type { Scratch } from './scratch.ts';

/** Debian's user and group without rights or files. */
const NOBODY = 65_534;

const isRoot = process.getuid?.() === 0;

/** Ways for root to give up what it may do and still read a checkout of its own, best first. */
const WAYS_DOWN = [
  ['unshare', '--user', `--map-user=${NOBODY}`, `--map-group=${NOBODY}`],
  ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'],
];

/**
 * Options that take a process's privileges, and a folder of its own. It runs as nobody; from a
 * checkout that only root may read, as what comes nearest.
 */
export function unprivileged(scratch: Scratch): { options: CliOptions; folder: string } {
  const folder = scratch.path('own');
  mkdirSync(folder, { mode: 0o700 });
  const env = { HOME: folder, XDG_RUNTIME_DIR: folder };
  if (!isRoot) return { options: { env }, folder };
  if (mayRead([], { uid: NOBODY, gid: NOBODY })) {
    chmodSync(scratch.folder, 0o711);
    chownSync(folder, NOBODY, NOBODY);
    return { options: { env, uid: NOBODY }, folder };
  }
  const through = WAYS_DOWN.find((way) => mayRead(way));
  assert.ok(through !== undefined, `needs ${WAYS_DOWN.map(([program]) => program).join(' or ')}`);
  return { options: { env, through }, folder };
}

/** Whether a process started so can run this checkout. */
function mayRead(through: readonly string[], ids: { uid?: number; gid?: number } = {}): boolean {
  const script = `fs.accessSync(${JSON.stringify(`${packageRoot}/src/cli/main.ts`)})`;
  const [program = '', ...args] = [...through, process.execPath, '--eval', script];
  return spawnSync(program, args, { ...ids, stdio: 'ignore' }).status === 0;
}
