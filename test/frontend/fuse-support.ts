import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { listLoops } from '../../native/loop.ts';
import { fusePermitted } from '../../src/frontend/fuse/permitted.ts';
import {
  startFuse,
  type FuseFrontend,
  type FuseOptions,
} from '../../src/frontend/fuse/fuse-frontend.ts';
import { readMountTable } from '../../src/frontend/fuse/mount-table.ts';
import type { MemoryDisk } from '../../bench/support/fuse-disk.ts';

const permission = fusePermitted();

/** For a test's `skip`: false, or why this process cannot mount. */
export const skipReason: string | false = permission.ok ? false : permission.reason;

/** Standard output of a command. Asynchronous, because this thread serves what the command reads. */
export async function run(command: string, ...args: string[]): Promise<Buffer> {
  const options = { encoding: 'buffer', maxBuffer: 256 * 1024 * 1024 } as const;
  const { stdout } = await promisify(execFile)(command, args, options);
  return stdout;
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

const cleanups = new WeakMap<TestContext, (() => Promise<unknown>)[]>();

/** Runs when the test ends, last come first: what is mounted on a directory goes before it. */
export function atEnd(context: TestContext, cleanup: () => Promise<unknown>): void {
  const known = cleanups.get(context);
  if (known !== undefined) return void known.push(cleanup);
  const stack = [cleanup];
  cleanups.set(context, stack);
  context.after(async () => {
    for (const next of stack.reverse()) await next();
  });
}

/** A directory that is gone after the test. */
export function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'replaybd-fuse-'));
  atEnd(context, () => rm(directory, { recursive: true }));
  return directory;
}

/** Serves a disk until the test ends. */
export async function serve(
  context: TestContext,
  disk: MemoryDisk,
  options: FuseOptions = {},
): Promise<FuseFrontend> {
  const directory = options.directory ?? temporaryDirectory(context);
  const frontend = await startFuse(disk, { reader: disk.reader, directory, ...options });
  atEnd(context, () => frontend.close());
  return frontend;
}

/** What is mounted below a directory or attached from it. */
export function leftovers(directory: string): string[] {
  const mounts = readMountTable().map(({ source, target }) => `${source} on ${target}`);
  const loops = listLoops().map(({ device, backingFile }) => `${device} of ${backingFile}`);
  return [...mounts, ...loops].filter((line) => line.includes(directory));
}

/** A file of /sys/block/loopN. */
export function loopAttribute(loopDevice: string | null, name: string): string {
  return readFileSync(`/sys/block/${loopDevice?.slice('/dev/'.length)}/${name}`, 'utf8').trim();
}
