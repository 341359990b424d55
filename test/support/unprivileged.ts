import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { packageRoot } from '../../src/base/package-root.ts';
import type { CliOptions } from './cli.ts';
import type { Scratch } from './scratch.ts';

/** Debian's user and group without rights or files. */
const NOBODY = 65_534;

const isRoot = process.getuid?.() === 0;

/**
 * Options that take a process's privileges, and a folder of its own. It runs as nobody; in a checkout
 * that only root may read, as a root without capabilities.
 */
export function unprivileged(scratch: Scratch): { options: CliOptions; folder: string } {
  const folder = scratch.path('own');
  mkdirSync(folder, { mode: 0o700 });
  const env = { HOME: folder, XDG_RUNTIME_DIR: folder };
  if (!isRoot) return { options: { env }, folder };
  if (!nobodyMayRead()) {
    const through = ['setpriv', '--bounding-set=-all', '--inh-caps=-all', '--no-new-privs'];
    return { options: { env, through }, folder };
  }
  chmodSync(scratch.folder, 0o711);
  chownSync(folder, NOBODY, NOBODY);
  return { options: { env, uid: NOBODY }, folder };
}

function nobodyMayRead(): boolean {
  const command = ['--eval', `fs.accessSync(${JSON.stringify(`${packageRoot}/src/cli/main.ts`)})`];
  const options = { uid: NOBODY, gid: NOBODY, stdio: 'ignore' } as const;
  return spawnSync(process.execPath, command, options).status === 0;
}
