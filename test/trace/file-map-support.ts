import { linkSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Scratch } from '../support/scratch.ts';
import { noise, sparseFile } from '../image/ext4-tree.ts';
import { makeErofsImage, makeExtImage } from '../image/fs-support.ts';

/** A tree with directories, files of many sizes, holes, hard and symbolic links, odd names. */
export function makeFileTree(scratch: Scratch): string {
  const tree = scratch.path('tree');
  mkdirSync(join(tree, 'usr/lib/deep'), { recursive: true });
  for (const size of [0, 1, 50, 4095, 4096, 4097, 300_001]) {
    writeFileSync(join(tree, `size-${size}`), noise(`size ${size}`, size));
  }
  for (let i = 0; i < 60; i += 1) {
    // Can be compressed, and has no two equal blocks.
    const lines = Array.from({ length: i * 20 }, (_, line) => `line ${line} of file ${i}\n`);
    writeFileSync(join(tree, `usr/lib/file-${i}`), lines.join(''));
  }
  writeFileSync(join(tree, 'usr/lib/deep/with space ✓'), noise('deep', 9000));
  // mke2fs forgets the size of a file that ends with a hole when it may be inline.
  sparseFile(join(tree, 'holes'), 99_008, [0, 20_000, 60_000, 99_000]);
  linkSync(join(tree, 'size-300001'), join(tree, 'usr/hard'));
  symlinkSync('usr/lib/file-3', join(tree, 'link'));
  symlinkSync(`usr/${'./'.repeat(60)}lib/file-3`, join(tree, 'long'));
  return tree;
}

/** How images of a tree are made, by name; 4 MiB each at most. */
export const fileSystems: Record<string, (tree: string, image: string) => void> = {
  'ext4 with a journal': (tree, image) =>
    makeExtImage(tree, image, 'has_journal,extent,filetype,64bit', '4M'),
  'ext4 with inline data': (tree, image) =>
    makeExtImage(tree, image, 'extent,filetype,inline_data', '4M'),
  ext2: (tree, image) => makeExtImage(tree, image, 'filetype', '4M'),
  erofs: (tree, image) => makeErofsImage(tree, image, []),
  'erofs in chunks': (tree, image) => makeErofsImage(tree, image, ['--chunksize=4096']),
  'compressed erofs': (tree, image) =>
    makeErofsImage(tree, image, ['-zlz4hc', '-C16384', '-Eztailpacking']),
};

/** The bytes of an image of the tree. */
export function imageOf(scratch: Scratch, tree: string, name: string): Buffer {
  const image = scratch.path(`image-${name}`);
  fileSystems[name](tree, image);
  return readFileSync(image);
}
