import { setImmediate as nextTurn } from 'node:timers/promises';
import { ReplaybdError } from '../../base/errors.ts';
import { ext4Limits } from '../../base/limits.ts';
import {
  EXT4_BLOCK_BYTES,
  EXT4_INODE_BYTES,
  type BlockRun,
  type Ext2Filesystem,
  type FileExtent,
} from '../../../native/ext2fs.ts';
import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import {
  directoryBlockCount,
  directoryBlocks,
  FILE_TYPE,
  type DirectoryEntry,
} from './directory-blocks.ts';
import { addExtents } from './block-placer.ts';
import { copyContent, type CopyTarget } from './file-data.ts';
import { EXT4_EPOCH_SECONDS } from './format.ts';
import * as inodes from './inode.ts';
import type { StagedImage } from './staged-image.ts';
import * as source from './source-tree.ts';
import type { SourceEntry } from './source-tree.ts';

const ROOT_INODE = 2;
const ENTRIES_PER_TURN = 64;

export interface TreeProgress {
  entries: number;
  /** Of regular files' content. */
  bytes: number;
}

export interface TreeWriterOptions {
  /** The image, for content; the library has it for metadata. */
  image: StagedImage;
  /** Told after each entry and each piece of content. */
  onProgress?: ((progress: TreeProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Copies one directory tree into a file system, in byte order of names, depth first: a directory's
 * blocks come before its content, content is contiguous. Whatever is in the way is replaced,
 * except a directory by something else; directories are merged.
 *
 * What was replaced is freed last, so that no block is written which the image on disk still uses.
 */
export class TreeWriter {
  readonly #filesystem: Ext2Filesystem;
  readonly #options: TreeWriterOptions;
  readonly #target: CopyTarget;
  readonly #progress: TreeProgress = { entries: 0, bytes: 0 };
  readonly #replaced: number[] = [];
  readonly #merged: { inode: number; attributes: ExtendedAttribute[] }[] = [];
  /** Files with several names, by identity, until their last name was met. */
  readonly #linked = new Map<string, { inode: number; left: number }>();
  #goalBlock = 1;

  constructor(filesystem: Ext2Filesystem, options: TreeWriterOptions) {
    this.#filesystem = filesystem;
    this.#options = options;
    this.#target = {
      write: (position, bytes) => options.image.writeContent(position, bytes),
      allocate: (count) => this.#allocate(count),
      copied: (bytes) => this.#report(0, bytes),
      signal: options.signal,
    };
  }

  /** Errors: ERR_EXT4_SOURCE, ERR_EXT4_CONFLICT, ERR_EXT4_FULL; the signal's reason. */
  async write(rootfs: string): Promise<void> {
    await this.#mergeDirectory(ROOT_INODE, source.readRoot(rootfs));
    for (const inode of this.#replaced) this.#release(inode);
    for (const { inode, attributes } of this.#merged) {
      this.#filesystem.setAttributes(inode, attributes);
    }
  }

  /** Lays the tree's directory over one that is there, which keeps what it has. */
  async #mergeDirectory(inode: number, directory: SourceEntry): Promise<void> {
    let subdirectories = 0;
    for (const name of source.readNames(directory.path)) {
      const entry = source.readEntry(directory.path, name);
      const present = this.#filesystem.lookup(inode, name);
      const presentIsDirectory = present !== null && this.#isDirectory(present);
      if (present !== null && presentIsDirectory && isDirectory(entry)) {
        await this.#mergeDirectory(present, entry);
        continue;
      }
      if (presentIsDirectory) throw conflictError(entry);
      if (present !== null) this.#replace(inode, name, present);
      const added = await this.#addEntry(inode, entry);
      this.#filesystem.link(inode, name, added, entry.fileType);
      if (isDirectory(entry)) subdirectories += 1;
    }
    const bytes = this.#readInode(inode);
    inodes.writeAttributes(bytes, directory);
    inodes.writeLinks(bytes, addSubdirectories(inodes.readLinks(bytes), subdirectories));
    this.#filesystem.writeInode(inode, bytes);
    this.#merged.push({ inode, attributes: source.readAttributesOf(directory) });
  }

  /** A directory that is not there yet: its size is known from its names, so that it is laid out
   * before its content and written once. */
  async #addDirectory(parent: number, directory: SourceEntry): Promise<number> {
    const inode = this.#filesystem.newInode(true);
    const names = source.readNames(directory.path);
    const extents = this.#allocateExtents(directoryBlockCount(names));
    const entries: DirectoryEntry[] = [];
    let subdirectories = 0;
    for (const name of names) {
      const entry = source.readEntry(directory.path, name);
      const added = await this.#addEntry(inode, entry);
      entries.push({ name, inode: added, fileType: entry.fileType });
      if (isDirectory(entry)) subdirectories += 1;
    }
    const links = addSubdirectories(2, subdirectories);
    const places = extents.flatMap(({ block, count }) =>
      Array.from({ length: count }, (_, index) => block + index),
    );
    const sizeBytes = places.length * EXT4_BLOCK_BYTES;
    this.#writeInode(inode, directory, links, { kind: 'extents', sizeBytes, extents });
    for (const bytes of directoryBlocks(inode, parent, entries)) {
      const block = places.shift();
      if (block === undefined) throw new Error('directory took more blocks than planned');
      this.#filesystem.writeDirectoryBlock(inode, block, bytes);
    }
    return inode;
  }

  async #addEntry(parent: number, entry: SourceEntry): Promise<number> {
    this.#options.signal?.throwIfAborted();
    this.#report(1, 0);
    if (this.#progress.entries % ENTRIES_PER_TURN === 0) await nextTurn();
    if (isDirectory(entry)) return this.#addDirectory(parent, entry);
    const other = this.#otherName(entry);
    if (other !== null) return other;
    const inode = this.#filesystem.newInode(false);
    this.#writeInode(inode, entry, 1, await this.#body(entry));
    if (entry.links > 1) this.#remember(entry, inode);
    return inode;
  }

  async #body(entry: SourceEntry): Promise<inodes.InodeBody> {
    switch (entry.fileType) {
      case FILE_TYPE.regular: {
        const extents = await copyContent(entry, this.#target);
        return { kind: 'extents', sizeBytes: entry.sizeBytes, extents };
      }
      case FILE_TYPE.symlink:
        return this.#targetBody(source.readTarget(entry));
      case FILE_TYPE.character:
      case FILE_TYPE.block:
        return { kind: 'device', ...entry.device };
      default:
        return { kind: 'none' };
    }
  }

  #targetBody(target: Buffer): inodes.InodeBody {
    if (target.length <= inodes.SHORT_TARGET_BYTES_MAX) return { kind: 'target', target };
    const extents = this.#allocateExtents(1);
    const block = Buffer.alloc(EXT4_BLOCK_BYTES);
    target.copy(block);
    this.#target.write((extents[0]?.block ?? 0) * EXT4_BLOCK_BYTES, block);
    return { kind: 'extents', sizeBytes: target.length, extents };
  }

  #writeInode(inode: number, entry: SourceEntry, links: number, body: inodes.InodeBody): void {
    this.#filesystem.writeInode(inode, inodes.encodeInode(entry, links, body));
    if (body.kind === 'extents' && body.extents.length > inodes.INODE_EXTENTS_MAX) {
      this.#filesystem.insertExtents(inode, body.extents);
    }
    const attributes = source.readAttributesOf(entry);
    if (attributes.length > 0) this.#filesystem.setAttributes(inode, attributes);
  }

  /** The inode of a file that was met before under another name, which gains a link. */
  #otherName(entry: SourceEntry): number | null {
    const known = this.#linked.get(entry.identity);
    if (known === undefined) return null;
    const bytes = this.#readInode(known.inode);
    const links = inodes.readLinks(bytes) + 1;
    if (links > ext4Limits.linksMax) {
      throw source.sourceError(
        entry.path,
        `ext4 gives a file at most ${ext4Limits.linksMax} names`,
      );
    }
    inodes.writeLinks(bytes, links);
    this.#filesystem.writeInode(known.inode, bytes);
    known.left -= 1;
    if (known.left === 0) this.#linked.delete(entry.identity);
    return known.inode;
  }

  #remember(entry: SourceEntry, inode: number): void {
    if (this.#linked.size === ext4Limits.hardLinksMax) {
      throw source.sourceError(
        entry.path,
        `more than ${ext4Limits.hardLinksMax} files have names that were not met yet`,
      );
    }
    this.#linked.set(entry.identity, { inode, left: entry.links - 1 });
  }

  #replace(directory: number, name: Buffer, inode: number): void {
    this.#filesystem.unlink(directory, name);
    const bytes = this.#readInode(inode);
    const links = inodes.readLinks(bytes) - 1;
    inodes.writeLinks(bytes, links);
    this.#filesystem.writeInode(inode, bytes);
    if (links === 0) this.#replaced.push(inode);
  }

  #release(inode: number): void {
    this.#filesystem.setAttributes(inode, []);
    if (inodes.hasExtents(this.#readInode(inode))) this.#filesystem.freeContent(inode);
    const bytes = this.#readInode(inode);
    inodes.writeDeleted(bytes, EXT4_EPOCH_SECONDS);
    this.#filesystem.writeInode(inode, bytes);
    this.#filesystem.freeInode(inode, false);
  }

  #isDirectory(inode: number): boolean {
    return source.fileTypeOfMode(inodes.readMode(this.#readInode(inode))) === FILE_TYPE.directory;
  }

  #readInode(inode: number): Buffer {
    const bytes = Buffer.alloc(EXT4_INODE_BYTES);
    this.#filesystem.readInode(inode, bytes);
    return bytes;
  }

  #allocate(count: number): BlockRun[] {
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

  #allocateExtents(count: number): FileExtent[] {
    const extents: FileExtent[] = [];
    let logical = 0;
    for (const run of this.#allocate(count)) {
      addExtents(extents, { ...run, logical });
      logical += run.count;
    }
    return extents;
  }

  #report(entries: number, bytes: number): void {
    this.#progress.entries += entries;
    this.#progress.bytes += bytes;
    this.#options.onProgress?.(this.#progress);
  }
}

function isDirectory(entry: SourceEntry): boolean {
  return entry.fileType === FILE_TYPE.directory;
}

/** A directory with more sub-directories than a link count can tell has the count 1. */
function addSubdirectories(links: number, added: number): number {
  const sum = links + added;
  return links === 1 || sum > ext4Limits.linksMax ? 1 : sum;
}

function conflictError(entry: SourceEntry): ReplaybdError {
  return new ReplaybdError(
    'ERR_EXT4_CONFLICT',
    `${entry.path.toString()}: a lower tree has a directory here, and it would be replaced by ` +
      'something else. Make it a directory, or remove the other one.',
  );
}
