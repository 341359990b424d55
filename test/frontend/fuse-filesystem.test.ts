import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { detectFilesystem } from '../../src/frontend/fuse/attach-mount.ts';
import { startFuse } from '../../src/frontend/fuse/fuse-frontend.ts';
import { readMountTable } from '../../src/frontend/fuse/mount-table.ts';
import { MemoryDisk, type MemoryDiskOptions } from '../../bench/support/fuse-disk.ts';
import { leftovers, run, serve, skipReason, temporaryDirectory } from './fuse-support.ts';

// Goal: the file systems of images are recognised, mounted and read whole through the front end,
// and a writable device takes what a file system writes.
// Method: mke2fs and mkfs.erofs build images of a directory; `diff -r` compares it with the mount.

const MIB = 1024 * 1024;

/** A directory with files of many sizes. */
async function makeTree(context: TestContext): Promise<string> {
  const tree = join(temporaryDirectory(context), 'tree');
  await mkdir(join(tree, 'nested', 'deep'), { recursive: true });
  for (let index = 0; index < 40; index += 1) {
    const directory = [tree, join(tree, 'nested'), join(tree, 'nested', 'deep')][index % 3];
    await writeFile(join(directory, `file-${index}`), randomBytes(index * index * 700 + index));
  }
  return tree;
}

async function diskOf(
  context: TestContext,
  type: 'ext4' | 'erofs',
  tree: string,
  options: MemoryDiskOptions = {},
): Promise<MemoryDisk> {
  const image = join(temporaryDirectory(context), 'image');
  if (type === 'ext4')
    await run('mke2fs', '-q', '-t', 'ext4', '-b', '4096', '-d', tree, image, '48M');
  else await run('mkfs.erofs', '--quiet', image, tree);
  const bytes = await readFile(image);
  const disk = new MemoryDisk(`${type}-disk`, bytes.length, options);
  disk.bytes.set(bytes);
  return disk;
}

for (const missBytes of [0, 64 * 1024]) {
  const name = `ext4 is mounted from the loop device, misses every ${missBytes} bytes`;
  test(name, { skip: skipReason }, async (context) => {
    const tree = await makeTree(context);
    const disk = await diskOf(context, 'ext4', tree, { missBytes });
    const before = Buffer.from(disk.bytes);
    const mount = temporaryDirectory(context);
    const frontend = await serve(context, disk, { mount });
    assert.equal(frontend.mountPoint, mount);
    const entry = readMountTable().find(({ target }) => target === mount);
    assert.deepEqual([entry?.type, entry?.source], ['ext4', frontend.loopDevice]);
    await run('diff', '-r', '--exclude=lost+found', tree, mount);
    await assert.rejects(writeFile(join(mount, 'new'), 'x'), { code: 'EROFS' });
    assert.equal(disk.calls.length > 0, missBytes > 0);
    await frontend.close();
    assert.ok(before.equals(disk.bytes));
    assert.deepEqual(leftovers(mount), []);
  });
}

test('erofs is mounted from the file itself', { skip: skipReason }, async (context) => {
  const tree = await makeTree(context);
  const disk = await diskOf(context, 'erofs', tree, { missBytes: 128 * 1024 });
  const mount = temporaryDirectory(context);
  const frontend = await serve(context, disk, { loop: false, mount });
  const entry = readMountTable().find(({ target }) => target === mount);
  assert.deepEqual([entry?.type, entry?.source], ['erofs', frontend.filePath]);
  await run('diff', '-r', tree, mount);
});

test('a disk without a file system leaves nothing', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('blank', MIB);
  const directory = temporaryDirectory(context);
  const mount = temporaryDirectory(context);
  const options = { reader: disk.reader, directory, mount };
  await assert.rejects(startFuse(disk, options), { code: 'ERR_FILESYSTEM_UNKNOWN' });
  assert.deepEqual(leftovers(directory), []);
});

test('ext4 writes to a writable device', { skip: skipReason }, async (context) => {
  const disk = await diskOf(context, 'ext4', await makeTree(context), { writable: true });
  const mount = temporaryDirectory(context);
  const written = randomBytes(5 * MIB);
  const first = await serve(context, disk, { mount });
  await writeFile(join(mount, 'written'), written);
  await run('sync', '-f', mount);
  await run('fstrim', mount);
  await first.close();
  for (const kind of ['write', 'flush', 'discard']) {
    assert.ok(
      disk.calls.some((call) => call.startsWith(kind)),
      `no ${kind} arrived`,
    );
  }
  const image = join(temporaryDirectory(context), 'image');
  await writeFile(image, disk.bytes);
  await run('e2fsck', '-fn', image);
  await serve(context, disk, { mount });
  assert.ok(written.equals(await readFile(join(mount, 'written'))));
});

test('zeroing a range of a writable loop arrives', { skip: skipReason }, async (context) => {
  const disk = new MemoryDisk('zeroes', 4 * MIB, { writable: true }).fillRandom();
  const { path } = await serve(context, disk);
  await run('blkdiscard', '--offset', String(MIB), '--length', String(MIB), path);
  await run('blkdiscard', '--zeroout', '--offset', '0', '--length', '8192', path);
  assert.deepEqual(
    disk.calls.filter((call) => /^(discard|writeZeroes)/.test(call)),
    [`discard ${MIB} ${MIB}`, 'writeZeroes 0 8192'],
  );
  const cleared = Buffer.from(disk.bytes);
  assert.ok((await readFile(path)).equals(cleared));
});

test('superblocks are told apart', () => {
  const ext4 = Buffer.alloc(4096);
  ext4.writeUInt16LE(0xef53, 1080);
  const erofs = Buffer.alloc(4096);
  erofs.writeUInt32LE(0xe0f5e1e2, 1024);
  const xfs = Buffer.from('XFSB'.padEnd(4096, '\0'));
  const types = [ext4, erofs, xfs, Buffer.alloc(4096), Buffer.alloc(100)].map(detectFilesystem);
  assert.deepEqual(types, ['ext4', 'erofs', 'xfs', null, null]);
});
