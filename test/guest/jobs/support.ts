import assert from 'node:assert/strict';
import { existsSync, readdirSync } from 'node:fs';
import { uptime } from 'node:os';
import { Scratch } from '../../support/scratch.ts';
import { readMountTable } from '../../../src/frontend/fuse/mount-table.ts';
import { output } from '../../support/programs.ts';

const TARGET = '/sys/kernel/config/target';

/** Says what is done next, so that the log tells where a job stopped. */
export function step(what: string): void {
  console.log(`[${uptime().toFixed(1)} s] ${what}`);
}

/** Runs a job. One that fails leaves everything as it is: the guest ends with it. */
export async function job(run: (scratch: Scratch) => Promise<void>): Promise<void> {
  const scratch = new Scratch();
  try {
    await run(scratch);
  } catch (error) {
    console.log(error);
    process.exit(1);
  }
  await scratch.close();
}

/** Fails when a front end has left anything in configfs, UIO or the mount table. */
export function nothingIsLeft(): void {
  const folders = [`${TARGET}/core`, `${TARGET}/loopback`, '/sys/class/uio'].filter(existsSync);
  const entries = folders.flatMap((folder) =>
    readdirSync(folder).map((name) => `${folder}/${name}`),
  );
  const left = entries.filter((path) => /user_|naa\.|uio\d/.test(path));
  const mounts = readMountTable().filter(({ source }) => source.startsWith('/dev/sd'));
  assert.deepEqual([...left, ...mounts.map(({ target }) => target)], []);
}

/** Names, kinds, contents and modes: all that diff and ls can tell. */
export async function compareTree(folder: string, mount: string): Promise<void> {
  for (const name of readdirSync(folder)) {
    await output('diff', '-r', '--no-dereference', `${folder}/${name}`, `${mount}/${name}`);
  }
}
