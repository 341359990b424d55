import {
  EXT4_BLOCK_BYTES,
  EXT4_INODE_BYTES,
  type BlockRun,
  type Ext2Filesystem,
  type FileExtent,
} from '../../../native/ext2fs.ts';
import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import { ext4Limits } from '../../base/limits.ts';
import { addExtents, type BlockTarget } from './block-placer.ts';
import { directoryBlocks, type DirectoryEntry } from './directory-blocks.ts';
import { EXT4_EPOCH_SECONDS } from './format.ts';
import * as inodes from './inode.ts';
import type { StagedImage } from './staged-image.ts';

/** What every way of writing files into a file system does the same: it gives them blocks, one after
 * the other from the first free one, and writes inodes and directories. */
export class InodeWriter implements BlockTarget {
  readonly #filesystem: Ext2Filesystem;
  readonly #image: StagedImage;
  #goalBlock = 1;

  constructor(filesystem: Ext2Filesystem, image: StagedImage) {
    this.#filesystem = filesystem;
    this.#image = image;
  }

  allocate(count: number): BlockRun[] {
    const runs: BlockRun[] = [];
    let left = count;
    while (left > 0) {
      const run = this.#filesystem.takeBlocks(this.#goalBlock, left);
      this.#goalBlock = run.block + run.count;
      left -= run.count;
      runs.push(run);
    }
    return runs;
  }

  allocateExtents(count: number): FileExtent[] {
    const extents: FileExtent[] = [];
    let logical = 0;
    for (const run of this.allocate(count)) {
      addExtents(extents, { ...run, logical });
      logical += run.count;
    }
    return extents;
  }

  write(position: number, bytes: Buffer): void {
    this.#image.writeContent(position, bytes);
  }

  read(inode: number): Buffer {
    const bytes = Buffer.alloc(EXT4_INODE_BYTES);
    this.#filesystem.readInode(inode, bytes);
    return bytes;
  }

  /** Writes a new inode, all of it. */
  add(
    inode: number,
    attributes: inodes.FileAttributes,
    links: number,
    body: inodes.InodeBody,
    extended: readonly ExtendedAttribute[],
  ): void {
    this.#filesystem.writeInode(inode, inodes.encodeInode(attributes, links, body));
    if (body.kind === 'extents' && body.extents.length > inodes.INODE_EXTENTS_MAX) {
      this.#filesystem.insertExtents(inode, body.extents);
    }
    if (extended.length > 0) this.#filesystem.setAttributes(inode, extended);
  }

  /** Writes the blocks of a new directory to `extents`, which are as many as it takes. */
  addDirectoryBlocks(
    inode: number,
    parent: number,
    entries: readonly DirectoryEntry[],
    extents: readonly FileExtent[],
  ): void {
    const places = placesOf(extents);
    for (const bytes of directoryBlocks(inode, parent, entries)) {
      const block = places.shift();
      if (block === undefined) throw new Error('directory took more blocks than planned');
      this.#filesystem.writeDirectoryBlock(inode, block, bytes);
    }
  }

  /** What the inode of a symbolic link holds; a long target takes a block. */
  targetBody(target: Buffer): inodes.InodeBody {
    if (target.length <= inodes.SHORT_TARGET_BYTES_MAX) return { kind: 'target', target };
    const extents = this.allocateExtents(1);
    const block = Buffer.alloc(EXT4_BLOCK_BYTES);
    target.copy(block);
    this.write((extents[0]?.block ?? 0) * EXT4_BLOCK_BYTES, block);
    return { kind: 'extents', sizeBytes: target.length, extents };
  }

  /** Frees an inode that has no name left, with all it holds. */
  release(inode: number, isDirectory: boolean): void {
    this.#filesystem.setAttributes(inode, []);
    if (inodes.hasBlocks(this.read(inode))) this.#filesystem.freeContent(inode);
    const bytes = this.read(inode);
    inodes.writeDeleted(bytes, EXT4_EPOCH_SECONDS);
    this.#filesystem.writeInode(inode, bytes);
    this.#filesystem.freeInode(inode, isDirectory);
  }
}

/** Every block of some extents, in order. */
export function placesOf(extents: readonly BlockRun[]): number[] {
  return extents.flatMap(({ block, count }) =>
    Array.from({ length: count }, (_, index) => block + index),
  );
}

/** A directory's links: its name, its `.`, and the `..` of each sub-directory. With more than a link
 * count can tell it has the count 1. */
export function addSubdirectories(links: number, added: number): number {
  const sum = links + added;
  return links === 1 || sum > ext4Limits.linksMax ? 1 : sum;
}
