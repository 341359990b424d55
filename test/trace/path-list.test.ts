import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { Disk } from '../../src/image/fs/disk.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { findNode } from '../../src/image/fs/walk.ts';
import { openInput } from '../../src/image/input.ts';
import {
  parsePathList,
  rangesOfPaths,
  type ListedRanges,
} from '../../src/trace/overlaybd/path-list.ts';
import { memoryDisk } from '../image/fs-support.ts';
import { needs } from '../support/needs.ts';
import { Scratch } from '../support/scratch.ts';

// Goal: a list of paths comes to the bytes of the files it names, whatever their names.
// Method: ext4 and erofs disks with odd names; each name's content is looked for in the ranges. The list
// and image of the original, where the files are known.

const skip = needs('mke2fs', 'mkfs.erofs');
const scratch = new Scratch();
const disks: Disk[] = [];
const names = [
  'libstdc++.so.6',
  '@scope',
  'with space',
  'tilde~:colon',
  '文件.txt',
  '# no comment',
  'ends with space ',
  '*',
];

before(() => {
  if (skip !== false) return;
  const tree = scratch.path('tree');
  mkdirSync(`${tree}/dir/sub`, { recursive: true });
  for (const name of names) writeFileSync(`${tree}/${name}`, contentOf(name));
  for (const name of ['one', 'sub/two']) writeFileSync(`${tree}/dir/${name}`, contentOf(name));
  const [ext4, erofs] = [scratch.path('ext4'), scratch.path('erofs')];
  const options = ['-q', '-F', '-t', 'ext4', '-O', 'extent', '-b', '4096'];
  const env = { PATH: `${process.env.PATH ?? ''}:/usr/sbin`, MKE2FS_CONFIG: '/dev/null' };
  execFileSync('mke2fs', [...options, '-d', tree, ext4, '4M'], { env, stdio: 'ignore' });
  execFileSync('mkfs.erofs', ['-T0', erofs, tree], { stdio: 'ignore' });
  for (const path of [ext4, erofs]) disks.push(memoryDisk(readFileSync(path)));
});
after(() => scratch.close());

function contentOf(name: string): string {
  return `<${name}>`.repeat(300);
}

async function look(disk: Disk, list: string | Buffer): Promise<ListedRanges> {
  return await rangesOfPaths(disk, parsePathList(Buffer.from(list), 'list'));
}

/** Whether the ranges hold a file's content. */
async function holds(disk: Disk, { ranges }: ListedRanges, name: string): Promise<boolean> {
  const parts = await Promise.all(ranges.map(({ offset, length }) => disk.read(offset, length)));
  return Buffer.concat(parts).includes(contentOf(name).slice(0, 500));
}

test('any name is found, by its line', { skip }, async () => {
  for (const disk of disks) {
    for (const name of names) {
      const found = await look(disk, `/${name}\n`);
      assert.deepEqual([found.files, found.missing, found.failed], [1, [], []], name);
      assert.ok(await holds(disk, found, name), name);
      assert.ok(
        found.ranges.every(({ offset, length }) => offset % 512 === 0 && length % 512 === 0),
      );
    }
    const all = await look(disk, names.join('\n'));
    assert.equal(
      all.files,
      names.length,
      'a slash in front is not needed, nor a line feed at the end',
    );
  }
});

test(
  'blanks around a path are not a part of it, unless there is such a name',
  { skip },
  async () => {
    const [disk] = disks;
    const found = await look(disk, '  /libstdc++.so.6  \r\n\n \t\n/dir/one\r\nends with space \n');
    assert.deepEqual([found.files, found.missing], [3, []]);
  },
);

test('a slash or a star at the end stands for all below', { skip }, async () => {
  for (const disk of disks) {
    for (const path of ['/dir/', 'dir/*', '/dir/sub/../']) {
      const found = await look(disk, path);
      assert.equal(found.files, 2, path);
      assert.ok(await holds(disk, found, 'sub/two'), path);
    }
    const folder = await look(disk, '/dir');
    assert.equal(folder.files, 0, 'without it, a directory is its own blocks');
    assert.equal((await look(disk, '/')).files, names.length + 2);
  }
});

test('what is not there is told, and hinders nothing', { skip }, async () => {
  const [disk] = disks;
  const found = await look(disk, '/no/such\n/dir/one\n/dir/one/below\n');
  assert.deepEqual([found.files, found.missing], [1, ['/no/such', '/dir/one/below']]);
});

test('a damaged file concerns only itself', { skip }, async () => {
  const [sound] = disks;
  const node = await findNode(await openFileSystem(sound), Buffer.from('/@scope'));
  assert.ok(node !== null);
  const [extent] = await node.extents();
  const bytes = Buffer.from(await sound.read(0, sound.sizeBytes));
  // The file's only extent: its first block, as the inode has it.
  const block = Buffer.alloc(4);
  block.writeUInt32LE(extent.offset / 4096);
  for (let at = bytes.indexOf(block); at >= 0; at = bytes.indexOf(block, at + 1)) {
    if (at > 8 && bytes.readUInt16LE(at - 4) === 1) bytes.fill(0xff, at, at + 4);
  }
  const found = await look(memoryDisk(bytes), '/@scope\n/dir/one\n');
  assert.equal(found.files, 1);
  assert.deepEqual(
    found.failed.map(({ path }) => path),
    ['/@scope'],
  );
  const all = await look(memoryDisk(bytes), '/\n');
  assert.equal(all.files, names.length + 1, 'nor does it end the walk of a tree');
  assert.deepEqual(
    all.failed.map(({ path }) => path),
    ['/@scope'],
  );
  assert.match(found.failed[0].reason, /expected data on a disk of 4194304 bytes/);
});

test('the same list comes to the same ranges, in its order', { skip }, async () => {
  const [disk] = disks;
  const list = '/dir/\n/with space\n/*\n/@scope';
  assert.deepEqual(await look(disk, list), await look(disk, list));
});

test('what is no list is refused', () => {
  assert.throws(() => parsePathList(Buffer.from('/a\0b'), 'x'), { code: 'ERR_PATH_LIST_FORMAT' });
  const large = Buffer.alloc(1024 * 1024 + 1, '/a\n');
  assert.throws(() => parsePathList(large, 'x'), { code: 'ERR_PATH_LIST_SIZE' });
});

test("the original's list in the original's image", async () => {
  const fixtures = new URL('../fixtures/', import.meta.url).pathname;
  const layers = ['layer0', 'layer1'].map((name) => `${fixtures}apply/${name}.lz4-4k.tar`);
  const input = await openInput(layers);
  try {
    const { source } = input;
    const disk: Disk = {
      name: 'image',
      sizeBytes: source.virtualSizeBytes,
      read: async (offset, length) => {
        assert.equal(offset % 512, 0);
        const bytes = new Uint8Array(Math.ceil(length / 512) * 512);
        await source.read(offset, bytes);
        return bytes.subarray(0, length);
      },
    };
    const listed = JSON.parse(readFileSync(`${fixtures}apply/layer1.files.json`, 'utf8')) as {
      path: string;
      size?: number;
      sha256?: string;
    }[];
    const many = listed.filter(
      (one) => one.path.startsWith('manyfiles/') && one.sha256 !== undefined,
    );
    const found = await look(disk, readFileSync(`${fixtures}trace/prefetch.list`));
    assert.deepEqual(found.missing, ['/no/such/file']);
    assert.equal(found.files, 2 + many.length);
    const text = await rangesOfPaths(disk, [Buffer.from('/usr/share/big.txt')]);
    const bytes = text.ranges.reduce((sum, { length }) => sum + length, 0);
    assert.ok(bytes >= 1_500_000 && bytes < 1_500_000 + 100 * 4096, `${bytes} bytes`);
  } finally {
    await input.close();
  }
});
