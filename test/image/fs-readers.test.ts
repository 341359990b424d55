import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test, type TestContext } from 'node:test';
import { cachedDisk } from '../../src/image/fs/disk.ts';
import type { FileExtent, FileSystem } from '../../src/image/fs/file-system.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { files, findNode } from '../../src/image/fs/walk.ts';
import { openInput } from '../../src/image/input.ts';
import { needs } from '../support/needs.ts';
import { output } from '../support/programs.ts';
import { Scratch } from '../support/scratch.ts';
import { noise, sparseFile } from './ext4-tree.ts';
import { digestOfFile, digestOfNode, digestsOf, fileDisk } from './fs-support.ts';

// Goal: the files of an ext4 or erofs disk are found where they are, whatever the file system's options.
// Method: one tree with everything in it, packed by mke2fs and mkfs.erofs in many ways; every file's
// content is put together from the extents that are found, and compared. Compressed files are compared with
// what dump.erofs says, and an image of the original with its list of files.

const skip = needs('mke2fs', 'mkfs.erofs', 'dump.erofs', 'debugfs');
const scratch = new Scratch();
const tree = scratch.path('tree');
let expected: string[] = [];
/** Of a file that is in ext4 images only: mkfs.erofs 1.5 fails on such names. */
const ODD_NAME = Buffer.from('bytes\xff\xfe\n', 'latin1');
const ODD_DIGEST = createHash('sha256').update('x').digest('hex');

before(() => {
  if (skip !== false) return;
  mkdirSync(tree);
  const at = (name: string) => join(tree, name);
  for (const name of ['a/b/c', 'many', 'empty']) mkdirSync(at(name), { recursive: true });
  for (const size of [0, 1, 50, 140, 4095, 4096, 4097, 3_000_001]) {
    writeFileSync(at(`size-${size}`), noise(`size ${size}`, size));
  }
  for (let i = 0; i < 1200; i += 1) writeFileSync(at(`many/file-number-${i}`), i % 4 ? `${i}` : '');
  writeFileSync(at('odd name * [x]'), noise('odd', 140));
  writeFileSync(at(`a/${'n'.repeat(200)}`), 'long name');
  linkSync(at('size-50'), at('a/b/hard'));
  for (let i = 0; i < 40; i += 1) {
    writeFileSync(at(`a/b/c/text-${i}`), `line of file ${i}\n`.repeat(37 * i * i));
  }
  writeFileSync(at('a/gaps'), Buffer.concat([noise('g', 4096), Buffer.alloc(8192), noise('h', 5)]));
  const islands = Array.from({ length: 600 }, (_, i) => i * 8192);
  sparseFile(at('islands'), 600 * 8192 + 1, islands);
  sparseFile(at('all-hole'), 1 << 20, []);
  for (const length of [1, 59, 60, 61, 900])
    symlinkSync('t/'.repeat(450).slice(0, length), at(`l${length}`));
  symlinkSync('../../many/file-number-7', at('a/b/relative'));
  symlinkSync('/a/b/relative', at('absolute'));
  symlinkSync('absolute', at('twice'));
  symlinkSync('loop', at('loop'));
  symlinkSync('a/b/../b', at('folder'));
  expected = digestsOfTree(Buffer.from(tree), '').sort();
});
after(() => scratch.close());

function digestsOfTree(folder: Buffer, shown: string): string[] {
  return readdirSync(folder, { encoding: 'buffer' }).flatMap((name) => {
    const path = Buffer.concat([folder, Buffer.from('/'), name]);
    const inner = `${shown}${name.toString('latin1')}`;
    const stats = lstatSync(path);
    if (stats.isDirectory()) return digestsOfTree(path, `${inner}/`);
    return stats.isFile() ? [`${inner} ${digestOfFile(path)}`] : [];
  });
}

function makeExt4(name: string, options: readonly string[]): string {
  const image = scratch.path(name);
  const odd = Buffer.concat([Buffer.from(`${tree}/`), ODD_NAME]);
  writeFileSync(odd, 'x');
  execFileSync('mke2fs', ['-q', '-F', ...options, '-d', tree, image, '96M'], {
    env: { PATH: `${process.env.PATH ?? ''}:/usr/sbin`, MKE2FS_CONFIG: '/dev/null' },
    stdio: 'ignore',
  });
  unlinkSync(odd);
  return image;
}

function makeErofs(name: string, options: readonly string[]): string {
  const image = scratch.path(name);
  execFileSync('mkfs.erofs', ['-T0', ...options, image, tree], { stdio: 'ignore' });
  return image;
}

async function checkFiles(t: TestContext, image: string): Promise<FileSystem> {
  const disk = cachedDisk(fileDisk(t, image));
  const fs = await openFileSystem(disk);
  const odd = `${ODD_NAME.toString('latin1')} ${ODD_DIGEST}`;
  const inImage = fs.type === 'ext4' ? [odd, ...expected].sort() : expected;
  assert.deepEqual(await digestsOf(fs, disk), inImage);
  return fs;
}

async function checkPaths(fs: FileSystem): Promise<void> {
  const size = async (path: string) =>
    (await findNode(fs, Buffer.from(path, 'latin1')))?.sizeBytes ?? null;
  for (const path of [
    'a/b/relative',
    '/absolute',
    '//twice/',
    '/folder/../../many/./file-number-7',
  ]) {
    assert.equal(await size(path), '7'.length, path);
  }
  assert.equal(await size('/../odd name * [x]'), 140);
  if (fs.type === 'ext4') assert.equal(await size('bytes\xff\xfe\n'), 1);
  for (const path of ['/loop', '/absolute/x', '/no', '/size-50/x']) {
    assert.equal(await size(path), null, path);
  }
  assert.equal((await findNode(fs, Buffer.from('/')))?.id, fs.rootId);
  for (const length of [1, 59, 60, 61, 900]) {
    for await (const { name, id } of (await fs.node(fs.rootId)).entries()) {
      if (name.toString() !== `l${length}`) continue;
      const target = await (await fs.node(id)).readLink();
      assert.equal(target.toString(), 't/'.repeat(450).slice(0, length));
    }
  }
}

const ext4Options = {
  'as overlaybd makes it': [
    '-t',
    'ext4',
    '-O',
    'none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,huge_file,extra_isize,metadata_csum',
    '-b',
    '4096',
    '-I',
    '256',
  ],
  'with hashed directories and inline data': [
    '-t',
    'ext4',
    '-O',
    'extent,filetype,dir_index,inline_data,metadata_csum',
    '-b',
    '4096',
    '-I',
    '512',
  ],
  'with small blocks and extents': [
    '-t',
    'ext4',
    '-O',
    'extent,filetype,dir_index',
    '-b',
    '1024',
    '-I',
    '256',
  ],
  'ext3 with block maps': [
    '-t',
    'ext3',
    '-O',
    'none,filetype,dir_index,has_journal',
    '-b',
    '1024',
    '-I',
    '128',
  ],
  'ext2 without file types': ['-t', 'ext2', '-O', 'none', '-b', '2048', '-I', '128'],
  bigalloc: ['-t', 'ext4', '-O', 'extent,filetype,bigalloc,64bit', '-b', '4096', '-C', '65536'],
};
for (const [name, options] of Object.entries(ext4Options)) {
  test(`ext4 ${name}`, { skip }, async (t) => {
    const image = makeExt4('disk.ext4', options);
    if (name.includes('inline')) mendInlineSizes(image);
    await checkPaths(await checkFiles(t, image));
  });
}

/** mke2fs forgets the size of a file that ends with a hole when it may be inline. */
function mendInlineSizes(image: string): void {
  for (const name of ['islands', 'all-hole']) {
    const size = lstatSync(join(tree, name)).size;
    const request = `set_inode_field /${name} size ${size}`;
    execFileSync('debugfs', ['-w', '-R', request, image], { stdio: 'ignore' });
  }
}

const erofsOptions = {
  plain: ['-x-1'],
  'with extended inodes and attributes': ['-Eforce-inode-extended'],
  'in chunks': ['--chunksize=4096'],
  'in large chunks': ['--chunksize=65536'],
};
for (const [name, options] of Object.entries(erofsOptions)) {
  test(`erofs ${name}`, { skip }, async (t) => {
    await checkPaths(await checkFiles(t, makeErofs('disk.erofs', options)));
  });
}

const compressedOptions = {
  'with a compact index': ['-zlz4'],
  'with big clusters': ['-zlz4hc', '-C65536'],
  'with a full index': ['-zlz4', '-Elegacy-compress'],
  'with a full index and big clusters': ['-zlz4', '-Elegacy-compress', '-C16384'],
  'with packed tails': ['-zlz4hc', '-C65536', '-Eztailpacking'],
};
for (const [name, options] of Object.entries(compressedOptions)) {
  test(`compressed erofs ${name}`, { skip }, async (t) => {
    const image = makeErofs('disk.erofs', options);
    const disk = cachedDisk(fileDisk(t, image));
    const fs = await openFileSystem(disk);
    let compressed = 0;
    for (const line of expected) {
      const path = line.slice(0, line.lastIndexOf(' '));
      // The program takes no spaces, and time.
      const isShown = /^[\x21-\x7e]+$/.test(path) && !/^many\/|text-.*[13579]$/.test(path);
      if (!isShown) continue;
      const node = await findNode(fs, Buffer.from(path, 'latin1'));
      assert.ok(node !== null, path);
      const told = await output('dump.erofs', '-e', `--path=/${path}`, image);
      if (!/Layout: [13]/.test(told)) {
        assert.equal(`${path} ${await digestOfNode(disk, node)}`, line);
        continue;
      }
      compressed += 1;
      assert.deepEqual(await node.extents(), extentsOf(told), path);
    }
    assert.ok(compressed >= 10, `${compressed} compressed files`);
  });
}

/** dump.erofs's lines, those that go on joined. */
function extentsOf(told: string): FileExtent[] {
  const lines = told.matchAll(/^ +\d+: +(\d+)\.\. *\d+ \| +\d+ : +(\d+)\.\. *\d+ \| +(\d+)/gm);
  const extents: { fileOffset: number; offset: number; length: number }[] = [];
  for (const [, fileOffset, offset, length] of lines) {
    const next = { fileOffset: Number(fileOffset), offset: Number(offset), length: Number(length) };
    const last = extents.at(-1);
    const goesOn =
      last !== undefined &&
      last.fileOffset + last.length === next.fileOffset &&
      last.offset + last.length === next.offset;
    if (goesOn) last.length += next.length;
    else extents.push(next);
  }
  return extents;
}

test('debugfs finds a scattered file in the same blocks', { skip }, async (t) => {
  const image = makeExt4('disk.ext4', ['-t', 'ext4', '-O', 'extent', '-b', '4096']);
  const fs = await openFileSystem(fileDisk(t, image));
  const node = await findNode(fs, Buffer.from('/islands'));
  const told = await output('debugfs', '-R', 'dump_extents -l /islands', image);
  const lines = told.matchAll(/^ *\d+\/ *\d+ +\d+\/ *\d+ +(\d+) - +\d+ +(\d+) - +\d+ +(\d+)/gm);
  const extents = [...lines].map(([, ...numbers]) => numbers.map((text) => Number(text) * 4096));
  assert.ok(extents.length >= 500, `${extents.length} extents`);
  const found = (await node?.extents())?.map(({ fileOffset, offset, length }) => [
    ...[fileOffset, offset, Math.ceil(length / 4096) * 4096],
  ]);
  assert.deepEqual(found, extents);
});

test("the original's image has the files that Linux finds in it", async () => {
  const folder = new URL('../fixtures/apply/', import.meta.url).pathname;
  const input = await openInput(['layer0', 'layer1'].map((name) => `${folder}${name}.lz4-4k.tar`));
  try {
    const { source } = input;
    const disk = cachedDisk({
      name: 'image',
      sizeBytes: source.virtualSizeBytes,
      read: async (offset, length) => {
        const first = offset - (offset % 512);
        const bytes = new Uint8Array(Math.ceil((offset + length - first) / 512) * 512);
        await source.read(first, bytes);
        return bytes.subarray(offset - first, offset - first + length);
      },
    });
    const listed = JSON.parse(readFileSync(`${folder}layer1.files.json`, 'utf8')) as {
      path: string;
      sha256?: string;
    }[];
    const wanted = listed.flatMap(({ path, sha256 }) =>
      sha256 === undefined ? [] : `${Buffer.from(path).toString('latin1')} ${sha256}`,
    );
    assert.ok(wanted.length > 150);
    assert.deepEqual(await digestsOf(await openFileSystem(disk), disk), wanted.sort());
  } finally {
    await input.close();
  }
});

test(
  'other file systems, and what is not read here, are refused with a reason',
  { skip },
  async (t) => {
    const refused: [string, string][] = [];
    const blank = scratch.path('blank');
    writeFileSync(blank, Buffer.alloc(1 << 20));
    refused.push([blank, 'ERR_FS_UNKNOWN']);
    const tiny = scratch.path('tiny');
    writeFileSync(tiny, Buffer.alloc(100));
    refused.push([tiny, 'ERR_FS_UNKNOWN']);
    refused.push([
      makeExt4('meta-bg', ['-t', 'ext4', '-O', 'meta_bg,^resize_inode']),
      'ERR_FS_UNSUPPORTED',
    ]);
    for (const [path, code] of refused) {
      await assert.rejects(openFileSystem(fileDisk(t, path)), { code }, path);
    }
  },
);

test('a directory that holds itself is walked once', { skip }, async (t) => {
  const image = makeExt4('disk.ext4', ['-t', 'ext4', '-O', '^metadata_csum', '-b', '1024']);
  execFileSync('debugfs', ['-w', '-R', 'link <2> /a/b/again', image], { stdio: 'ignore' });
  const fs = await openFileSystem(fileDisk(t, image));
  let count = 0;
  for await (const { node } of files(fs)) count += node.kind === 'file' ? 1 : 0;
  assert.equal(count, expected.length + 1);
});
