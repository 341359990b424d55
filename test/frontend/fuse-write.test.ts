import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fuseLimits } from '../../src/base/limits.ts';
import { MemoryDisk, type MemoryDiskOptions } from '../../bench/support/fuse-disk.ts';
import { needs } from '../support/needs.ts';
import { atEnd, leftovers, loopAttribute, run, serve, temporaryDirectory } from './fuse-support.ts';

// Goal: what guests write through the file and the loop device is on the disk when they are told so,
// whichever thread took it, and nothing else is; what cannot be written is refused with an errno.
// Method: disks in memory, of which workers write all, a part or nothing by themselves; fio's own
// verification, coreutils and ext4 as guests.

const MIB = 1024 * 1024;
const skip = needs('root');

const sharings: [string, MemoryDiskOptions][] = [
  ['workers write', { sharesWrites: true }],
  ['the main thread writes', {}],
  ['both write', { sharesWrites: true, missBytes: 64 * 1024 }],
];

function writable(id: string, sizeBytes: number, options: MemoryDiskOptions = {}): MemoryDisk {
  return new MemoryDisk(id, sizeBytes, { writable: true, ...options });
}

function callsOf(disk: MemoryDisk, kind: string): string[] {
  return disk.calls.filter((call) => call.startsWith(kind));
}

for (const [name, options] of sharings) {
  test(`fio verifies what it wrote: ${name}`, { skip: needs('root', 'fio') }, async (context) => {
    const disk = writable('fio', 16 * MIB, options);
    const { path, filePath } = await serve(context, disk);
    for (const [target, depth] of [
      [path, 16],
      [filePath, 4],
    ] as const) {
      const report = await run(
        'fio',
        ...['--name=verify', `--filename=${target}`, '--ioengine=libaio', '--direct=1'],
        ...['--rw=randrw', '--bsrange=512-128k', '--blockalign=512', '--size=16m'],
        ...[`--iodepth=${depth}`, '--verify=crc32c', '--verify_state_save=0', '--fsync=64'],
        `--aux-path=${temporaryDirectory(context)}`,
      );
      assert.match(report.toString(), /err= 0/);
    }
    const byMain = callsOf(disk, 'write').length;
    assert.equal(byMain === 0, options.sharesWrites === true && options.missBytes === undefined);
    assert.ok(callsOf(disk, 'flush').length > 0);
  });
}

test('writes land where they are meant, and nowhere else', { skip }, async (context) => {
  for (const [, options] of sharings) {
    const disk = writable('places', 4 * MIB + 512, options).fillRandom();
    const expected = Buffer.from(disk.bytes);
    const { filePath } = await serve(context, disk, { loop: false });
    const file = await open(filePath, constants.O_RDWR | constants.O_DIRECT);
    try {
      for (const [offset, length] of [
        [0, 512],
        [512, 4096],
        [65_536 - 512, 1024],
        // From memory that is not aligned, the kernel would split more than this at odd bytes.
        [MIB, 512 * 1024],
        [4 * MIB, 512],
      ]) {
        const data = randomBytes(length);
        assert.equal((await file.write(data, 0, length, offset)).bytesWritten, length);
        data.copy(expected, offset);
      }
    } finally {
      await file.close();
    }
    assert.ok(expected.equals(disk.bytes));
  }
});

test('what cannot be written is refused, and changes nothing', { skip }, async (context) => {
  const disk = writable('refusing', MIB, { sharesWrites: true }).fillRandom();
  const before = Buffer.from(disk.bytes);
  const { filePath } = await serve(context, disk, { loop: false });
  const file = await open(filePath, constants.O_RDWR | constants.O_DIRECT);
  const write = (offset: number, length: number) =>
    file.write(Buffer.alloc(length), 0, length, offset);
  try {
    await assert.rejects(write(1, 512), { code: 'EINVAL' });
    await assert.rejects(write(512, 100), { code: 'EINVAL' });
    await assert.rejects(write(MIB, 512), { code: 'ENOSPC' });
    await assert.rejects(write(MIB - 512, 1024), { code: 'ENOSPC' });
    await assert.rejects(write(2 ** 40, 4096), { code: 'ENOSPC' });
    await assert.rejects(file.truncate(2 * MIB), { code: 'EINVAL' });
  } finally {
    await file.close();
  }
  const fallocate = (...args: string[]) => run('fallocate', ...args, filePath);
  await assert.rejects(fallocate('-l', '4096'), /Operation not supported/);
  await assert.rejects(fallocate('-p', '-o', '100', '-l', '512'), /Invalid argument/);
  assert.ok(before.equals(disk.bytes));
});

test('holes are punched and ranges zeroed in the file', { skip }, async (context) => {
  const disk = writable('holes', MIB, { sharesWrites: true }).fillRandom();
  const { filePath } = await serve(context, disk, { loop: false });
  await run('fallocate', '-p', '-o', '512', '-l', '1024', filePath);
  await run('fallocate', '-z', '-o', '8192', '-l', '4096', filePath);
  const changes = disk.calls.filter((call) => /^(discard|writeZeroes)/.test(call));
  assert.deepEqual(changes, ['discard 512 1024', 'writeZeroes 8192 4096']);
});

test('fsync and close flush the device', { skip }, async (context) => {
  const disk = writable('flushing', MIB, { sharesWrites: true });
  const { filePath } = await serve(context, disk, { loop: false });
  const file = await open(filePath, 'r+');
  await file.write(Buffer.alloc(4096, 1), 0, 4096, 0);
  assert.equal(callsOf(disk, 'flush').length, 0);
  await file.sync();
  assert.equal(callsOf(disk, 'flush').length, 1);
  await file.close();
  assert.equal(callsOf(disk, 'flush').length, 2);
});

test('the loop device can be written, discarded and zeroed', { skip }, async (context) => {
  const disk = writable('loop', 8 * MIB, { sharesWrites: true }).fillRandom();
  const { loopDevice } = await serve(context, disk);
  assert.equal(loopAttribute(loopDevice, 'ro'), '0');
  assert.equal(loopAttribute(loopDevice, 'loop/dio'), '1');
  for (const limit of ['discard_max_bytes', 'write_zeroes_max_bytes']) {
    assert.ok(Number(loopAttribute(loopDevice, `queue/${limit}`)) >= 8 * MIB, limit);
  }
  await run('mke2fs', '-q', '-t', 'ext4', '-E', 'discard', loopDevice ?? '');
  assert.ok(callsOf(disk, 'discard').includes(`discard 0 ${8 * MIB}`));
  await run('e2fsck', '-fn', loopDevice ?? '');
});

test('a guest that stays loses nothing of what it wrote', { skip }, async (context) => {
  const disk = writable('busy', 16 * MIB, { sharesWrites: true });
  const image = join(temporaryDirectory(context), 'image');
  await run('mke2fs', '-q', '-t', 'ext4', image, '16M');
  disk.bytes.set(await readFile(image));
  const [directory, mount] = [temporaryDirectory(context), temporaryDirectory(context)];
  const frontend = await serve(context, disk, { directory, mount, closeGraceMs: 200 });
  const written = randomBytes(5 * MIB);
  await writeFile(join(mount, 'written'), written);
  const guest = await open(mount);
  await frontend.close();
  await guest.close();
  assert.deepEqual([...leftovers(directory), ...leftovers(mount)], []);
  await serve(context, disk, { mount });
  assert.ok(written.equals(await readFile(join(mount, 'written'))));
});

test(
  'writes and flushes do not wait for reads',
  { skip: needs('root', 'fio') },
  async (context) => {
    const options = { sharesWrites: true, missBytes: MIB, missMs: 2 ** 30 };
    const disk = writable('stalled', 16 * MIB, options);
    const { path } = await serve(context, disk, { closeGraceMs: 200 });
    // As many as a loop device keeps under way, less some: of the second MiB, which never answers.
    const depth = 100;
    const reads = spawn(
      'fio',
      [
        ...['--name=stuck', `--filename=${path}`, '--ioengine=libaio', '--direct=1', '--rw=read'],
        ...['--bs=4k', `--iodepth=${depth}`, '--offset=1m', '--size=1m', '--readonly'],
      ],
      { stdio: 'ignore' },
    );
    atEnd(context, async () => reads.kill('SIGKILL'));
    while (callsOf(disk, 'read').length < fuseLimits.answersMax) await sleep(5);
    const source = join(temporaryDirectory(context), 'source');
    await writeFile(source, randomBytes(65_536));
    const words = ['bs=4k', 'seek=512', 'oflag=direct', 'conv=fsync', 'status=none'];
    await run('dd', `if=${source}`, `of=${path}`, ...words);
    assert.ok((await readFile(source)).equals(disk.bytes.subarray(2 * MIB, 2 * MIB + 65_536)));
    assert.ok(callsOf(disk, 'flush').length > 0);
  },
);
