import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { findNode, walkTree } from '../../src/image/fs/walk.ts';
import { needs } from '../support/needs.ts';
import { Scratch } from '../support/scratch.ts';
import { noise, sparseFile } from './ext4-tree.ts';
import { makeErofsImage, makeExtImage, memoryDisk } from './fs-support.ts';

// Goal: whatever a disk holds, reading its file system ends, inside the disk and in bounded time, with
// an answer or with an ERR_FS error.
// Method: small real images; random bytes of their metadata, and whole fields of it, are changed; all files
// are walked, all extents and links read.

const skip = needs('mke2fs', 'mkfs.erofs');
const scratch = new Scratch();
after(() => scratch.close());

function makeTree(): string {
  const tree = scratch.path('tree');
  mkdirSync(join(tree, 'a/b'), { recursive: true });
  for (let i = 0; i < 30; i += 1)
    writeFileSync(join(tree, `a/b/file-${i}`), `text ${i} `.repeat(i * 40));
  writeFileSync(join(tree, 'noise'), noise('x', 30_000));
  sparseFile(join(tree, 'holes'), 100_000, [0, 20_000, 40_000, 60_000, 80_000, 99_000]);
  symlinkSync('a/b/file-3', join(tree, 'link'));
  symlinkSync(`a/b/${'./'.repeat(40)}file-3`, join(tree, 'long'));
  return tree;
}

const images: Record<string, (tree: string, image: string) => void> = {
  'ext4 with extents': (tree, image) =>
    makeExtImage(tree, image, 'extent,filetype,dir_index,64bit', '700K'),
  'ext4 with inline data': (tree, image) =>
    makeExtImage(tree, image, 'extent,filetype,inline_data', '700K'),
  ext2: (tree, image) => makeExtImage(tree, image, 'filetype', '700K'),
  erofs: (tree, image) => makeErofsImage(tree, image, []),
  'erofs in chunks': (tree, image) => makeErofsImage(tree, image, ['--chunksize=4096']),
  'compressed erofs': (tree, image) =>
    makeErofsImage(tree, image, ['-zlz4hc', '-C16384', '-Eztailpacking']),
  'compressed erofs with a full index': (tree, image) =>
    makeErofsImage(tree, image, ['-zlz4', '-Elegacy-compress']),
};

/** Reads everything there is; how many files, or the code of the error that ended it. */
async function readAll(bytes: Uint8Array): Promise<number | string> {
  const inner = memoryDisk(bytes);
  let reads = 0;
  const disk = {
    ...inner,
    read: async (offset: number, length: number) => {
      reads += 1;
      assert.ok(reads < 200_000, 'reading ends');
      assert.ok(offset >= 0 && length >= 0 && offset + length <= bytes.length, 'inside the disk');
      return inner.read(offset, length);
    },
  };
  try {
    const fs = await openFileSystem(disk);
    await findNode(fs, Buffer.from('link'));
    await findNode(fs, Buffer.from('/long'));
    let files = 0;
    for await (const { node } of walkTree(fs, await fs.node(fs.rootId))) {
      files += 1;
      for (const { offset, length } of await node.extents()) {
        assert.ok(offset >= 0 && length > 0 && offset + length <= bytes.length, 'on the disk');
      }
      if (node.kind === 'symlink') await node.readLink();
    }
    return files;
  } catch (error) {
    if (codeOf(error).startsWith('ERR_FS_')) return codeOf(error);
    throw error;
  }
}

for (const [name, make] of Object.entries(images)) {
  test(`any damage to ${name}`, { skip }, async () => {
    const image = scratch.path('image');
    make(treeOnce(), image);
    const sound = readFileSync(image);
    // mke2fs adds lost+found.
    assert.equal(await readAll(sound), name.startsWith('ext') ? 37 : 36);
    // Where it is worth it: what is neither zero nor noise.
    const places: number[] = [];
    for (let at = 1024; at < sound.length; at += 1) if (sound[at] !== 0) places.push(at);
    const change = fc.record({
      place: fc.nat(places.length - 1),
      value: fc.oneof(
        fc.constantFrom(0n, 1n, 0x7fffn, 0xffffn, 0x8000_0000n, 0xffff_ffffn, 2n ** 64n - 1n),
        fc.bigInt(0n, 2n ** 64n - 1n),
      ),
      bytes: fc.constantFrom(1, 2, 4, 8),
    });
    const outcomes = new Set<string>();
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 4 }), async (changes) => {
        const bytes = Buffer.from(sound);
        for (const { place, value, bytes: width } of changes) {
          for (let i = 0; i < width && places[place] + i < bytes.length; i += 1) {
            bytes[places[place] + i] = Number((value >> BigInt(8 * i)) & 0xffn);
          }
        }
        outcomes.add(typeof (await readAll(bytes)));
      }),
      { numRuns: 150 },
    );
    assert.ok(outcomes.has('number'));
  });
}

let tree = '';
function treeOnce(): string {
  if (tree === '') tree = makeTree();
  return tree;
}
