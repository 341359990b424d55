import { EXT4_BLOCK_BYTES, type Ext2Filesystem } from '../../../native/ext2fs.ts';
import type { ExtendedAttribute } from '../../../native/extended-attributes.ts';
import { ext4Limits } from '../../base/limits.ts';
import { FILE_TYPE, recordsOf } from '../ext4/directory-blocks.ts';
import { hasPlainEntries, readSize, type FileAttributes } from '../ext4/inode.ts';
import { imageError } from './errors.ts';

export const ROOT_INODE = 2;
/** Inodes below it belong to the file system itself. */
const FIRST_INODE = 11;

/** One name of a directory. */
export interface Entry {
  inode: number;
  /** One of FILE_TYPE. */
  readonly fileType: number;
  /** The layer that is applied has an entry for it, so that its own whiteouts leave it alone. */
  isOfLayer: boolean;
  /** Its content, once that was needed. */
  directory: Directory | null;
}

/** Owner, permissions and times, with the extended attributes. */
export interface Attributes extends FileAttributes {
  extended: readonly ExtendedAttribute[];
}

/** A directory as it will be; on disk it is as it was until everything is known. */
export class Directory {
  readonly inode: number;
  /** The root is its own. */
  readonly parent: Directory;
  /** It is on disk already. */
  readonly isLower: boolean;
  /** By name, a character a byte. */
  readonly entries: Map<string, Entry>;
  /** Its entries are no longer those on disk. */
  isChanged = false;
  /** It, or what is below it, has entries of the layer. */
  hasLayerEntries = false;
  /** It is not reachable any more. */
  isGone = false;
  /** What it is to have; null leaves what it has. */
  attributes: Attributes | null = null;

  constructor(
    inode: number,
    parent: Directory | null,
    lowerEntries: Map<string, Entry> | null = null,
  ) {
    this.inode = inode;
    this.parent = parent ?? this;
    this.isLower = lowerEntries !== null;
    this.entries = lowerEntries ?? new Map<string, Entry>();
  }

  /** Adds or replaces an entry, and tells all above. */
  set(name: string, entry: Entry): void {
    this.entries.set(name, entry);
    this.isChanged = true;
    this.markLayerEntries();
  }

  remove(name: string): void {
    this.entries.delete(name);
    this.isChanged = true;
  }

  markLayerEntries(): void {
    let directory: Directory = this;
    while (!directory.hasLayerEntries) {
      directory.hasLayerEntries = true;
      directory = directory.parent;
    }
  }
}

/** The blocks of a directory on disk and where they are. Errors: ERR_APPLY_IMAGE, ERR_EXT4_LIBRARY. */
export function* storedBlocks(
  filesystem: Ext2Filesystem,
  inode: number,
  inodeBytes: Buffer,
): Generator<{ place: number; bytes: Buffer }> {
  const sizeBytes = readSize(inodeBytes);
  if (!hasPlainEntries(inodeBytes)) {
    throw imageError(`directory ${inode}: its entries are stored in a way that is not supported.`);
  }
  for (let logical = 0; logical * EXT4_BLOCK_BYTES < sizeBytes; logical += 1) {
    const place = filesystem.blockOf(inode, logical);
    if (place === 0) throw imageError(`directory ${inode}: a block is missing.`);
    const bytes = Buffer.alloc(EXT4_BLOCK_BYTES);
    filesystem.readDirectoryBlock(inode, place, bytes);
    yield { place, bytes };
  }
}

/** The entries of a directory on disk, without `.` and `..`. Errors: as storedBlocks. */
export function readEntries(
  filesystem: Ext2Filesystem,
  inode: number,
  inodeBytes: Buffer,
): Map<string, Entry> {
  const entries = new Map<string, Entry>();
  for (const { bytes } of storedBlocks(filesystem, inode, inodeBytes)) {
    for (const record of recordsOf(bytes)) {
      if (record.inode === 0) continue;
      const name = record.name.toString('latin1');
      if (name === '.' || name === '..') continue;
      if (record.inode < FIRST_INODE || record.fileType > FILE_TYPE.symlink || entries.has(name)) {
        throw imageError(`directory ${inode}: a bad entry.`);
      }
      const { inode: target, fileType } = record;
      entries.set(name, { inode: target, fileType, isOfLayer: false, directory: null });
      if (entries.size > ext4Limits.directoryEntriesMax) {
        throw imageError(`directory ${inode}: more than ${entries.size - 1} entries.`);
      }
    }
  }
  return entries;
}
