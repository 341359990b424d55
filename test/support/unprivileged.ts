import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync } from 'node:fs';
import { packageRoot } from '../../src/base/package-root.ts';
import type { CliOptions } from './cli.ts';
import type { Scratch } from './scratch.ts';

/** Debian's user and group without rights or files. */
const NOBODY = 65_534;

const isRoot = process.getuid?.() === 0;

/** A test's `skip` when it cannot be run without privileges: nobody may not read this checkout. */
export const skipUnprivileged: string | false = mayRun() ? false : 'needs a checkout open to all';

/** Options that take a process's privileges, and a folder of its own. */
export function unprivileged(scratch: Scratch): { options: CliOptions; folder: string } {
  const folder = scratch.path('own');
  mkdirSync(folder, { mode: 0o700 });
  const env = { HOME: folder, XDG_RUNTIME_DIR: folder };
  if (!isRoot) return { options: { env }, folder };
  chmodSync(scratch.folder, 0o711);
  chownSync(folder, NOBODY, NOBODY);
  return { options: { env, uid: NOBODY }, folder };
}

function mayRun(): boolean {
  if (!isRoot) return true;
  const command = ['--eval', `fs.accessSync(${JSON.stringify(`${packageRoot}/src/cli/main.ts`)})`];
  const options = { uid: NOBODY, gid: NOBODY, stdio: 'ignore' } as const;
  return spawnSync(process.execPath, command, options).status === 0;
}
