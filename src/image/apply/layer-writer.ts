import { constants } from 'node:fs';
import { EXT4_BLOCK_BYTES, type Ext2Filesystem } from '../../../native/ext2fs.ts';
import { applyLimits } from '../../base/limits.ts';
import { FILE_TYPE } from '../ext4/directory-blocks.ts';
import { InodeWriter } from '../ext4/inode-writer.ts';
import type { InodeBody } from '../ext4/inode.ts';
import { isKeptAttribute } from '../ext4/source-tree.ts';
import type { StagedImage } from '../ext4/staged-image.ts';
import type { TarEntry, TarVisitor } from '../tar/entry.ts';
import type { ApplyProgress } from './apply-layer.ts';
import { ContentWriter } from './content-writer.ts';
import { addDirectory, attributesError, updateDirectory } from './directory-commit.ts';
import { DirectoryTree } from './directory-tree.ts';
import type { Attributes, Directory, Entry } from './directory.ts';
import { meaningOf, namesOf } from './entry-path.ts';
import { entryError } from './errors.ts';
import { LinkCounts } from './link-counts.ts';

type EntryType = Exclude<TarEntry['type'], 'link'>;

const TYPES: Readonly<Record<EntryType, { mode: number; fileType: number }>> = {
  file: { mode: constants.S_IFREG, fileType: FILE_TYPE.regular },
  directory: { mode: constants.S_IFDIR, fileType: FILE_TYPE.directory },
  symlink: { mode: constants.S_IFLNK, fileType: FILE_TYPE.symlink },
  character: { mode: constants.S_IFCHR, fileType: FILE_TYPE.character },
  block: { mode: constants.S_IFBLK, fileType: FILE_TYPE.block },
  fifo: { mode: constants.S_IFIFO, fileType: FILE_TYPE.fifo },
};

/**
 * Lays a layer's entries over a file system. Files and their content are written as they come;
 * directories, link counts and what is to be freed are kept until `finish`, so that the order of
 * entries does not matter where it should not, and every block of metadata is written once.
 */
export class LayerWriter implements TarVisitor {
  readonly progress: ApplyProgress = { entries: 0, bytes: 0 };
  readonly #filesystem: Ext2Filesystem;
  readonly #image: StagedImage;
  readonly #inodes: InodeWriter;
  readonly #links: LinkCounts;
  readonly #tree: DirectoryTree;
  readonly #content: ContentWriter;
  /** The file whose content comes now. */
  #file: { entry: TarEntry; inode: number } | null = null;

  constructor(filesystem: Ext2Filesystem, image: StagedImage) {
    this.#filesystem = filesystem;
    this.#image = image;
    this.#inodes = new InodeWriter(filesystem, image);
    this.#links = new LinkCounts(this.#inodes);
    this.#tree = new DirectoryTree(filesystem, image, this.#inodes, this.#links);
    this.#content = new ContentWriter(this.#inodes);
  }

  /** Errors: ERR_APPLY_*, ERR_EXT4_*. */
  entry(entry: TarEntry): void {
    this.progress.entries += 1;
    const names = namesOf(entry.path);
    const name = names.at(-1);
    if (name === undefined) {
      this.#mergeRoot(entry);
      return;
    }
    const folder = names.slice(0, -1);
    const meaning = meaningOf(names, entry.path);
    switch (meaning.kind) {
      case 'entry':
        this.#put(entry, folder, name);
        return;
      case 'whiteout': {
        const directory = this.#tree.resolve(folder, false, entry.path);
        if (directory !== null) this.#tree.hide(directory, meaning.hides);
        return;
      }
      case 'opaque': {
        const directory = this.#tree.resolve(folder, false, entry.path);
        if (directory !== null) this.#tree.hideLower(directory);
        return;
      }
      case 'ignored':
        return;
    }
  }

  content(offset: number, bytes: Buffer): void {
    if (this.#file === null) return;
    this.#content.write(offset, bytes);
    this.progress.bytes += bytes.length;
  }

  endEntry(): void {
    if (this.#file === null) return;
    const { entry, inode } = this.#file;
    this.#file = null;
    const extents = this.#content.finish();
    this.#addInode(inode, entry, { kind: 'extents', sizeBytes: entry.sizeBytes, extents });
  }

  /** Writes what was kept. The file system is then complete, and still to be closed. */
  finish(): void {
    const gone: { inode: number; isLower: boolean }[] = [];
    for (const directory of this.#tree.directories()) {
      if (directory.isGone) gone.push(directory);
      else if (directory.isLower) updateDirectory(this.#filesystem, this.#inodes, directory);
      else addDirectory(this.#inodes, directory);
    }
    for (const inode of this.#links.write(this.#filesystem)) this.#inodes.release(inode, false);
    for (const { inode, isLower } of gone) {
      if (isLower) this.#inodes.release(inode, true);
      else this.#filesystem.freeInode(inode, true);
    }
  }

  #mergeRoot(entry: TarEntry): void {
    if (entry.type !== 'directory') {
      throw entryError('ERR_APPLY_PATH', entry.path, 'only a directory can be the root.');
    }
    this.#tree.root.attributes = attributesOf(entry, 'directory');
  }

  #put(entry: TarEntry, folder: readonly string[], name: string): void {
    const parent = this.#folderOf(entry, folder);
    const present = parent.entries.get(name);
    if (entry.type === 'link') {
      this.#putLink(entry, parent, name, present);
      return;
    }
    const attributes = attributesOf(entry, entry.type);
    if (entry.type === 'directory') {
      if (present?.fileType === FILE_TYPE.directory) {
        present.isOfLayer = true;
        this.#tree.open(present, parent).attributes = attributes;
        parent.markLayerEntries();
        return;
      }
      if (present !== undefined) this.#tree.remove(parent, name, present);
      this.#tree.add(parent, name, attributes);
      return;
    }
    this.#checkSize(entry);
    if (present !== undefined) this.#tree.remove(parent, name, present);
    const inode = this.#filesystem.newInode(false);
    const { fileType } = TYPES[entry.type];
    if (entry.type === 'file') this.#file = { entry, inode };
    else this.#addInode(inode, entry, this.#bodyOf(entry));
    parent.set(name, { inode, fileType, isOfLayer: true, directory: null });
  }

  /** The directory an entry is in; what is missing of it is made. */
  #folderOf(entry: TarEntry, folder: readonly string[]): Directory {
    const parent = this.#tree.resolve(folder, true, entry.path);
    if (parent === null) throw new Error('a folder was not made');
    return parent;
  }

  /** A hard link has no attributes of its own: what its entry says of them is passed over. */
  #putLink(entry: TarEntry, parent: Directory, name: string, present: Entry | undefined): void {
    const targetNames = namesOf(entry.linkTarget);
    const targetFolder = this.#tree.resolve(targetNames.slice(0, -1), false, entry.path);
    const target = targetFolder?.entries.get(targetNames.at(-1) ?? '');
    if (target === undefined || target.fileType === FILE_TYPE.directory) {
      const problem =
        target === undefined
          ? 'the file it is a hard link to is not there.'
          : 'it is a hard link to a directory.';
      throw entryError('ERR_APPLY_LINK', entry.path, problem);
    }
    const { inode, fileType } = target;
    if (present?.inode !== inode) {
      if (!this.#links.add(inode, 1)) {
        throw entryError(
          'ERR_APPLY_LINK',
          entry.path,
          'the file has more names than ext4 can tell.',
        );
      }
      if (present !== undefined) this.#tree.remove(parent, name, present);
    }
    parent.set(name, { inode, fileType, isOfLayer: true, directory: null });
  }

  #checkSize({ path, sizeBytes, storedBytes, type, linkTarget }: TarEntry): void {
    if (sizeBytes > applyLimits.fileBytesMax || storedBytes > this.#image.sizeBytes) {
      const problem = `${sizeBytes} bytes (${storedBytes} stored) do not fit into the file system.`;
      throw entryError('ERR_APPLY_SIZE', path, problem, { errno: 'ENOSPC' });
    }
    const targetBytes = linkTarget.length;
    if (type !== 'symlink' || (targetBytes > 0 && targetBytes < EXT4_BLOCK_BYTES)) return;
    const problem = `a target of 1 to ${EXT4_BLOCK_BYTES - 1} bytes is needed, found ${targetBytes}.`;
    throw entryError('ERR_APPLY_LINK', path, problem);
  }

  #bodyOf(entry: TarEntry): InodeBody {
    switch (entry.type) {
      case 'symlink':
        return this.#inodes.targetBody(Buffer.from(entry.linkTarget, 'latin1'));
      case 'character':
      case 'block':
        return { kind: 'device', ...entry.device };
      default:
        return { kind: 'none' };
    }
  }

  #addInode(inode: number, entry: TarEntry, body: InodeBody): void {
    const type = entry.type === 'link' ? 'file' : entry.type;
    const attributes = attributesOf(entry, type);
    try {
      this.#inodes.add(inode, attributes, 1, body, attributes.extended);
    } catch (error) {
      throw attributes.extended.length > 0 ? attributesError(entry.path, error) : error;
    }
  }
}

function attributesOf(entry: TarEntry, type: EntryType): Attributes {
  const { mode, uid, gid, mtimeNs, attributes } = entry;
  const extended = attributes
    .filter(({ name }) => isKeptAttribute(name.toString('latin1')))
    .sort((a, b) => Buffer.compare(a.name, b.name));
  // Linux gives every symbolic link all permissions, and no way to change them.
  const permissions = type === 'symlink' ? 0o777 : mode;
  return { mode: TYPES[type].mode | permissions, uid, gid, mtimeNs, extended };
}
