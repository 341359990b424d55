import { EXT4_BLOCK_BYTES, type Ext2Filesystem } from '../../../native/ext2fs.ts';
import { applyLimits } from '../../base/limits.ts';
import { FILE_TYPE } from '../ext4/directory-blocks.ts';
import type { InodeWriter } from '../ext4/inode-writer.ts';
import { readShortTarget, readSize } from '../ext4/inode.ts';
import type { StagedImage } from '../ext4/staged-image.ts';
import { Directory, readEntries, ROOT_INODE, type Attributes, type Entry } from './directory.ts';
import { entryError, imageError } from './errors.ts';
import type { LinkCounts } from './link-counts.ts';

/** What a directory has that the layer needs but does not describe. */
const IMPLIED_ATTRIBUTES: Attributes = {
  mode: 0o040755,
  uid: 0,
  gid: 0,
  mtimeNs: 0n,
  extended: [],
};

/** The image's directories as far as the layer has to do with them. */
export class DirectoryTree {
  readonly root: Directory;
  readonly #filesystem: Ext2Filesystem;
  readonly #image: StagedImage;
  readonly #inodes: InodeWriter;
  readonly #links: LinkCounts;
  readonly #byInode = new Map<number, Directory>();

  constructor(
    filesystem: Ext2Filesystem,
    image: StagedImage,
    inodes: InodeWriter,
    links: LinkCounts,
  ) {
    this.#filesystem = filesystem;
    this.#image = image;
    this.#inodes = inodes;
    this.#links = links;
    const entries = readEntries(filesystem, ROOT_INODE, inodes.read(ROOT_INODE));
    this.root = new Directory(ROOT_INODE, null, entries);
    this.#byInode.set(ROOT_INODE, this.root);
  }

  /** Every directory that was looked into or made, in that order. */
  directories(): Iterable<Directory> {
    return this.#byInode.values();
  }

  /** The directory that an entry of `parent` stands for. Errors: ERR_APPLY_IMAGE. */
  open(entry: Entry, parent: Directory): Directory {
    if (entry.directory !== null) return entry.directory;
    if (this.#byInode.has(entry.inode)) {
      throw imageError(`directory ${entry.inode} has two names.`);
    }
    const inodeBytes = this.#inodes.read(entry.inode);
    const entries = readEntries(this.#filesystem, entry.inode, inodeBytes);
    const directory = new Directory(entry.inode, parent, entries);
    this.#byInode.set(entry.inode, directory);
    entry.directory = directory;
    return directory;
  }

  /** Makes a directory where nothing is. */
  add(parent: Directory, name: string, attributes: Attributes): Directory {
    const inode = this.#filesystem.newInode(true);
    const directory = new Directory(inode, parent);
    directory.attributes = attributes;
    this.#byInode.set(inode, directory);
    parent.set(name, { inode, fileType: FILE_TYPE.directory, isOfLayer: true, directory });
    return directory;
  }

  /**
   * The directory that names lead to from the root; symbolic links are followed inside the image, as
   * if the root were their `/`. With `create` what is missing is made; without, null is the answer for
   * what is missing or no directory. Errors, naming `path`: ERR_APPLY_LINK_LOOP, ERR_APPLY_PARENT.
   */
  resolve(names: readonly string[], create: boolean, path: string): Directory | null {
    const pending = names.toReversed();
    let directory = this.root;
    let linksFollowed = 0;
    for (let name = pending.pop(); name !== undefined; name = pending.pop()) {
      if (name === '' || name === '.') continue;
      if (name === '..') {
        directory = directory.parent;
        continue;
      }
      const entry = directory.entries.get(name);
      if (entry === undefined) {
        if (!create) return null;
        directory = this.add(directory, name, IMPLIED_ATTRIBUTES);
      } else if (entry.fileType === FILE_TYPE.directory) {
        directory = this.open(entry, directory);
      } else if (entry.fileType === FILE_TYPE.symlink) {
        linksFollowed += 1;
        if (linksFollowed > applyLimits.symlinksMax) {
          const problem = `more than ${applyLimits.symlinksMax} symbolic links lead to its folder.`;
          throw entryError('ERR_APPLY_LINK_LOOP', path, problem);
        }
        const target = this.#targetOf(entry.inode);
        if (target.startsWith('/')) directory = this.root;
        pending.push(...target.split('/').reverse());
      } else {
        if (!create) return null;
        const problem = 'what should be its folder is a file, which the layer does not replace.';
        throw entryError('ERR_APPLY_PARENT', path, problem);
      }
    }
    return directory;
  }

  /** Takes an entry out of a directory, with all that is below it. */
  remove(directory: Directory, name: string, entry: Entry): void {
    directory.remove(name);
    const pending = [{ entry, parent: directory }];
    for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
      if (next.entry.fileType !== FILE_TYPE.directory) {
        this.#links.add(next.entry.inode, -1);
        continue;
      }
      const gone = this.open(next.entry, next.parent);
      gone.isGone = true;
      for (const child of gone.entries.values()) pending.push({ entry: child, parent: gone });
    }
  }

  /**
   * Removes what lower layers have in a directory; what the layer has stays, whatever came first. A
   * directory that only stays for what is in it is as if the layer had needed and made it.
   */
  hideLower(top: Directory): void {
    const below = [top];
    for (const directory of below) {
      for (const entry of directory.entries.values()) {
        const isKept = entry.isOfLayer || entry.directory?.hasLayerEntries === true;
        if (!isKept || entry.fileType !== FILE_TYPE.directory) continue;
        below.push(this.open(entry, directory));
      }
    }
    for (const directory of below.reverse()) {
      for (const [name, entry] of [...directory.entries]) this.#hideEmptied(directory, name, entry);
    }
  }

  /** Removes what lower layers have under a name, as hideLower does in a directory. */
  hide(parent: Directory, name: string): void {
    const entry = parent.entries.get(name);
    if (entry === undefined) return;
    const { isOfLayer, fileType, directory } = entry;
    if (fileType === FILE_TYPE.directory && (isOfLayer || directory?.hasLayerEntries === true)) {
      this.hideLower(this.open(entry, parent));
    }
    this.#hideEmptied(parent, name, entry);
  }

  /** If it is a directory, then what was to be hidden in it is gone. */
  #hideEmptied(parent: Directory, name: string, entry: Entry): void {
    const { isOfLayer, directory } = entry;
    if (isOfLayer) return;
    if (directory !== null && directory.hasLayerEntries && directory.entries.size > 0) {
      directory.attributes = IMPLIED_ATTRIBUTES;
    } else {
      this.remove(parent, name, entry);
    }
  }

  /** Where a symbolic link leads, a character a byte. */
  #targetOf(inode: number): string {
    const bytes = this.#inodes.read(inode);
    const short = readShortTarget(bytes);
    if (short !== null) return short.toString('latin1');
    const sizeBytes = readSize(bytes);
    const block = this.#filesystem.blockOf(inode, 0);
    if (sizeBytes > EXT4_BLOCK_BYTES || block === 0) {
      throw imageError(`symbolic link ${inode}: its target is missing.`);
    }
    const target = Buffer.alloc(EXT4_BLOCK_BYTES);
    this.#image.read(block * EXT4_BLOCK_BYTES, target);
    return target.toString('latin1', 0, sizeBytes);
  }
}
