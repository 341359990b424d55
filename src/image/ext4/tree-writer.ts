import { setImmediate as nextTurn } from 'node:timers/promises';
import { ReplaybdError } from '../../base/errors.ts';
import { ext4Limits } from '../../base/limits.ts';
import { EXT4_BLOCK_BYTES, type Ext2Filesystem } from '../../../native/ext2fs.ts';
import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import { directoryBlockCount, FILE_TYPE, type DirectoryEntry } from './directory-blocks.ts';
import { copyContent, type CopyTarget } from './file-data.ts';
import { addSubdirectories, InodeWriter } from './inode-writer.ts';
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
  readonly #inodes: InodeWriter;
  readonly #target: CopyTarget;
  readonly #progress: TreeProgress = { entries: 0, bytes: 0 };
  readonly #replaced: number[] = [];
  readonly #merged: { inode: number; attributes: ExtendedAttribute[] }[] = [];
  /** Files with several names, by identity, until their last name was met. */
  readonly #linked = new Map<string, { inode: number; left: number }>();

  constructor(filesystem: Ext2Filesystem, options: TreeWriterOptions) {
    this.#filesystem = filesystem;
    this.#options = options;
    this.#inodes = new InodeWriter(filesystem, options.image);
    this.#target = {
      write: (position, bytes) => this.#inodes.write(position, bytes),
      allocate: (count) => this.#inodes.allocate(count),
      copied: (bytes) => this.#report(0, bytes),
      signal: options.signal,
    };
  }

  /** Errors: ERR_EXT4_SOURCE, ERR_EXT4_CONFLICT, ERR_EXT4_FULL; the signal's reason. */
  async write(rootfs: string): Promise<void> {
    await this.#mergeDirectory(ROOT_INODE, source.readRoot(rootfs));
    for (const inode of this.#replaced) this.#inodes.release(inode, false);
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
    const bytes = this.#inodes.read(inode);
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
    const extents = this.#inodes.allocateExtents(directoryBlockCount(names));
    const entries: DirectoryEntry[] = [];
    let subdirectories = 0;
    for (const name of names) {
      const entry = source.readEntry(directory.path, name);
      const added = await this.#addEntry(inode, entry);
      entries.push({ name, inode: added, fileType: entry.fileType });
      if (isDirectory(entry)) subdirectories += 1;
    }
    const links = addSubdirectories(2, subdirectories);
    const blocks = extents.reduce((sum, { count }) => sum + count, 0);
    const body = { kind: 'extents', sizeBytes: blocks * EXT4_BLOCK_BYTES, extents } as const;
    const attributes = source.readAttributesOf(directory);
    this.#inodes.add(inode, directory, links, body, attributes);
    this.#inodes.addDirectoryBlocks(inode, parent, entries, extents);
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
    const body = await this.#body(entry);
    this.#inodes.add(inode, entry, 1, body, source.readAttributesOf(entry));
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
        return this.#inodes.targetBody(source.readTarget(entry));
      case FILE_TYPE.character:
      case FILE_TYPE.block:
        return { kind: 'device', ...entry.device };
      default:
        return { kind: 'none' };
    }
  }

  /** The inode of a file that was met before under another name, which gains a link. */
  #otherName(entry: SourceEntry): number | null {
    const known = this.#linked.get(entry.identity);
    if (known === undefined) return null;
    const bytes = this.#inodes.read(known.inode);
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
    const bytes = this.#inodes.read(inode);
    const links = inodes.readLinks(bytes) - 1;
    inodes.writeLinks(bytes, links);
    this.#filesystem.writeInode(inode, bytes);
    if (links === 0) this.#replaced.push(inode);
  }

  #isDirectory(inode: number): boolean {
    return source.fileTypeOfMode(inodes.readMode(this.#inodes.read(inode))) === FILE_TYPE.directory;
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

function conflictError(entry: SourceEntry): ReplaybdError {
  return new ReplaybdError(
    'ERR_EXT4_CONFLICT',
    `${entry.path.toString()}: a lower tree has a directory here, and it would be replaced by ` +
      'something else. Make it a directory, or remove the other one.',
  );
}
