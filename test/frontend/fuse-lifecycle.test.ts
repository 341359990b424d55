import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { mkdir, open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startFuse } from '../../src/frontend/fuse/fuse-frontend.ts';
import { parseMountTable } from '../../src/frontend/fuse/mount-table.ts';
import { isOwnerGone, ownerTag } from '../../src/frontend/fuse/owner.ts';
import { recoverStale } from '../../src/frontend/fuse/stale.ts';
import { MemoryDisk } from '../../bench/support/fuse-disk.ts';
import { atEnd, leftovers, run, serve, skipReason, temporaryDirectory } from './fuse-support.ts';

// Goal: however a front end ends - closed, closed under a stuck or busy guest, left open by a
// process that exits or is killed - nothing hangs, and nothing stays mounted or attached.
// Method: real mounts; devices that never answer; a server process that is killed.

const MIB = 1024 * 1024;
const program = fileURLToPath(new URL('./fuse-server-process.ts', import.meta.url));

interface ServerProcess {
  child: ChildProcess;
  directory: string;
  mount: string;
}

/** A process that serves an ext4 image and has mounted it. */
async function startProcess(context: TestContext): Promise<ServerProcess> {
  const image = join(temporaryDirectory(context), 'image');
  await run('mke2fs', '-q', '-t', 'ext4', image, '8M');
  const directory = temporaryDirectory(context);
  const mount = temporaryDirectory(context);
  const child = spawn(process.execPath, [program, image, directory, mount], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  atEnd(context, async () => {
    child.kill('SIGKILL');
    await recoverStale(directory);
  });
  for await (const line of createInterface(child.stdout)) {
    assert.ok(existsSync(join(mount, 'lost+found')), line);
    break;
  }
  assert.equal(leftovers(directory).length, 2, 'the FUSE mount and the loop device');
  assert.equal(leftovers(mount).length, 1, 'the file system');
  return { child, directory, mount };
}

test('what a killed server leaves is recovered', { skip: skipReason }, async (context) => {
  const { child, directory, mount } = await startProcess(context);
  assert.deepEqual(await recoverStale(directory), [], 'a living server is left alone');
  child.kill('SIGKILL');
  await once(child, 'exit');
  const [device] = readdirSync(directory);
  assert.deepEqual(await recoverStale(directory), [join(directory, device, 'disk')]);
  assert.deepEqual([...leftovers(directory), ...leftovers(mount)], []);
  assert.deepEqual(readdirSync(directory), []);
  assert.deepEqual(await recoverStale(directory), []);
});

test(
  'a process that exits without closing does not hang',
  { skip: skipReason },
  async (context) => {
    const { child, directory, mount } = await startProcess(context);
    child.stdin?.end();
    const [code] = (await once(child, 'exit')) as [number];
    assert.equal(code, 7);
    // Its connection is cut and its file unmounted; the guest's mount is what recovery is for.
    await recoverStale(directory);
    assert.deepEqual([...leftovers(directory), ...leftovers(mount)], []);
  },
);

test('close is idempotent and leaves nothing', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('closing', MIB).fillRandom();
  const directory = temporaryDirectory(context);
  const frontend = await startFuse(disk, { reader: disk.reader, directory });
  await Promise.all([frontend.close(), frontend.close()]);
  await frontend.close();
  assert.deepEqual(leftovers(directory), []);
  assert.deepEqual(readdirSync(directory), []);
});

test('the same device is not served twice', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('twice', MIB).fillRandom();
  const directory = temporaryDirectory(context);
  const { filePath } = await serve(context, disk, { directory });
  const again = startFuse(disk, { reader: disk.reader, directory });
  await assert.rejects(again, { code: 'ERR_FUSE_BUSY' });
  assert.equal((await readFile(filePath)).length, MIB);
});

test('close cuts off guests whose reads never end', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('stuck', MIB, { missBytes: 4096, missMs: 2 ** 30 }).fillRandom();
  const directory = temporaryDirectory(context);
  const options = { reader: disk.reader, directory, closeGraceMs: 200 };
  const frontend = await startFuse(disk, options);
  const reads = [frontend.filePath, frontend.path].map((path) => readFile(path));
  const outcomes = Promise.allSettled(reads);
  while (disk.calls.length < 2) await new Promise((resolve) => setImmediate(resolve));
  await frontend.close();
  for (const outcome of await outcomes) assert.equal(outcome.status, 'rejected');
  assert.deepEqual(leftovers(directory), []);
});

test('close cuts off guests that stay', { skip: skipReason }, async (context) => {
  const image = join(temporaryDirectory(context), 'image');
  await run('mke2fs', '-q', '-t', 'ext4', image, '8M');
  const disk = new MemoryDisk('busy', 8 * MIB);
  disk.bytes.set(await readFile(image));
  const directory = temporaryDirectory(context);
  const mount = temporaryDirectory(context);
  const options = { reader: disk.reader, directory, mount, closeGraceMs: 200 };
  const frontend = await startFuse(disk, options);
  const guest = await open(mount);
  await frontend.close();
  await guest.close();
  assert.deepEqual([...leftovers(directory), ...leftovers(mount)], []);
});

test(
  'close ends a connection that a copy of the mount keeps',
  { skip: skipReason },
  async (context) => {
    const directory = temporaryDirectory(context);
    const disk = new MemoryDisk('copied', MIB).fillRandom();
    const options = { reader: disk.reader, directory, closeGraceMs: 200 };
    const frontend = await startFuse(disk, options);
    const { filePath } = frontend;
    // As a container has one that was started meanwhile.
    const hold = 'echo copied; read -r line; cat "$0"';
    const args = ['--mount', '--propagation', 'private', 'sh', '-c', hold, filePath];
    const holder = spawn('unshare', args, { stdio: ['pipe', 'pipe', 'ignore'] });
    atEnd(context, async () => holder.kill('SIGKILL'));
    await once(holder.stdout, 'data');
    await frontend.close();
    assert.deepEqual(leftovers(directory), []);
    assert.deepEqual(readdirSync(directory), [], 'closed to the end');
    holder.stdin.end('\n');
    const [code] = (await once(holder, 'exit')) as [number];
    assert.notEqual(code, 0, 'a read through the copy fails');
  },
);

test(
  'close ends a connection whose mount somebody took away',
  { skip: skipReason },
  async (context) => {
    const directory = temporaryDirectory(context);
    const disk = new MemoryDisk('taken', MIB).fillRandom();
    const options = { reader: disk.reader, directory, closeGraceMs: 200, loop: false };
    const frontend = await startFuse(disk, options);
    const guest = await open(frontend.filePath);
    await run('umount', '--lazy', frontend.filePath);
    await frontend.close();
    await assert.rejects(guest.read(Buffer.alloc(4096), 0, 4096, 0));
    await guest.close();
    assert.deepEqual(readdirSync(directory), [], 'closed to the end');
  },
);

test('devices come and go quickly', { skip: skipReason }, async (context) => {
  const directory = temporaryDirectory(context);
  for (let round = 0; round < 5; round += 1) {
    const disk = new MemoryDisk(`round${round}`, MIB).fillRandom();
    const frontend = await startFuse(disk, { reader: disk.reader, directory, loop: false });
    await frontend.close();
    assert.deepEqual(readdirSync(directory), []);
  }
});

test(
  'a server whose reader cannot be loaded fails to start',
  { skip: skipReason },
  async (context) => {
    const directory = temporaryDirectory(context);
    const module = join(temporaryDirectory(context), 'broken.mjs');
    await writeFile(module, 'throw new Error("broken on purpose");');
    const disk = new MemoryDisk('broken', MIB);
    const reader = { url: new URL(`file://${module}`), data: null };
    await assert.rejects(startFuse(disk, { reader, directory }), /broken on purpose/);
    assert.deepEqual(leftovers(directory), []);
  },
);

test('directories of dead processes are removed, others kept', async (context) => {
  const directory = temporaryDirectory(context);
  const names = ['4194305-dead', `${process.pid}-living`, 'notes'];
  for (const name of names) await mkdir(join(directory, name));
  await recoverStale(directory);
  assert.deepEqual(readdirSync(directory).sort(), names.slice(1).sort());
});

test('an owner is known by its process and when that started', () => {
  assert.equal(isOwnerGone(ownerTag('disk')), false);
  assert.equal(isOwnerGone(`replaybd:${process.pid}.1:disk`), true);
  assert.equal(isOwnerGone('replaybd:4194305.1:disk'), true);
  assert.equal(isOwnerGone('/dev/sda1'), false, 'not ours');
});

test('the mount table is read with its escapes and optional fields', () => {
  const text =
    '36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 propagate_from:2 - ext3 /dev/root rw\n' +
    '40 35 0:41 / /run/x\\134y rw - fuse.replaybd replaybd:1.2:a\\011b rw,user_id=0\n';
  assert.deepEqual(parseMountTable(text), [
    { deviceNumber: '98:0', target: '/mnt 2', type: 'ext3', source: '/dev/root' },
    {
      deviceNumber: '0:41',
      target: '/run/x\\y',
      type: 'fuse.replaybd',
      source: 'replaybd:1.2:a\tb',
    },
  ]);
});
