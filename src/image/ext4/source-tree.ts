import {
  constants,
  lstatSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  type BigIntStats,
} from 'node:fs';
import {
  readExtendedAttributes,
  type ExtendedAttribute,
} from '../../../native/extended-attributes.ts';
import { messageOf, ReplaybdError } from '../../base/errors.ts';
import { ext4Limits } from '../../base/limits.ts';
import { FILE_TYPE } from './directory-blocks.ts';
import type { FileAttributes } from './inode.ts';

/** One file of the source tree, as lstat sees it. Names and paths are bytes, in any encoding. */
export interface SourceEntry extends FileAttributes {
  path: Buffer;
  name: Buffer;
  /** One of FILE_TYPE. */
  fileType: number;
  sizeBytes: number;
  /** The file system stores less than `sizeBytes`. */
  hasHoles: boolean;
  device: { major: number; minor: number };
  /** Names of the file anywhere, also outside the tree. */
  links: number;
  /** Tells files apart: the same for all names of one file. */
  identity: string;
}

const FILE_TYPE_OF_MODE = new Map<number, number>([
  [constants.S_IFREG, FILE_TYPE.regular],
  [constants.S_IFDIR, FILE_TYPE.directory],
  [constants.S_IFCHR, FILE_TYPE.character],
  [constants.S_IFBLK, FILE_TYPE.block],
  [constants.S_IFIFO, FILE_TYPE.fifo],
  [constants.S_IFSOCK, FILE_TYPE.socket],
  [constants.S_IFLNK, FILE_TYPE.symlink],
]);

/** The type that a mode's upper bits tell. */
export function fileTypeOfMode(mode: number): number {
  const fileType = FILE_TYPE_OF_MODE.get(mode & constants.S_IFMT);
  if (fileType === undefined) throw new Error(`mode ${mode.toString(8)} has no known file type`);
  return fileType;
}

/** A directory's names, sorted by their bytes. Errors: ERR_EXT4_SOURCE. */
export function readNames(directory: Buffer): Buffer[] {
  const names = reading(directory, () => readdirSync(directory, { encoding: 'buffer' }));
  if (names.length > ext4Limits.directoryEntriesMax) {
    throw sourceError(
      directory,
      `expected at most ${ext4Limits.directoryEntriesMax} entries, found ${names.length}`,
    );
  }
  return names.sort(Buffer.compare);
}

/** Symbolic links are not followed. Errors: ERR_EXT4_SOURCE. */
export function readEntry(directory: Buffer, name: Buffer): SourceEntry {
  const path = Buffer.concat([directory, Buffer.from('/'), name]);
  return toEntry(path, name);
}

/** The top of a tree: a directory, or a symbolic link to one. Errors: ERR_EXT4_SOURCE. */
export function readRoot(rootfs: string): SourceEntry {
  const given = Buffer.from(rootfs);
  const path = reading(given, () => realpathSync(given, { encoding: 'buffer' }));
  const entry = toEntry(path, Buffer.alloc(0));
  if (entry.fileType !== FILE_TYPE.directory) throw sourceError(given, 'it is not a directory');
  return entry;
}

/** Errors: ERR_EXT4_SOURCE. */
export function readTarget(entry: SourceEntry): Buffer {
  return reading(entry.path, () => readlinkSync(entry.path, { encoding: 'buffer' }));
}

/** The attributes an image keeps: labels of the building machine's own policy stay behind. */
export function readAttributesOf(entry: SourceEntry): ExtendedAttribute[] {
  return reading(entry.path, () => readExtendedAttributes(entry.path, isKeptAttribute));
}

/** Whether an image keeps an extended attribute of this name. */
export function isKeptAttribute(name: string): boolean {
  return (
    name.startsWith('user.') ||
    name.startsWith('trusted.') ||
    name === 'security.capability' ||
    name === 'system.posix_acl_access' ||
    name === 'system.posix_acl_default'
  );
}

function toEntry(path: Buffer, name: Buffer): SourceEntry {
  const stats = reading(path, () => lstatSync(path, { bigint: true }));
  const mode = Number(stats.mode);
  const sizeBytes = Number(stats.size);
  return {
    path,
    name,
    mode,
    fileType: fileTypeOfMode(mode),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtimeNs: stats.mtimeNs,
    sizeBytes,
    hasHoles: Number(stats.blocks) * 512 < sizeBytes,
    device: splitDevice(stats),
    links: Number(stats.nlink),
    identity: `${stats.dev}:${stats.ino}`,
  };
}

/** glibc's dev_t: 12 low and 20 high bits of the major number around 8 and 24 of the minor. */
function splitDevice(stats: BigIntStats): { major: number; minor: number } {
  const device = stats.rdev;
  return {
    major: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)),
    minor: Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n)),
  };
}

/** Runs a call on the source; what it throws names the file. */
export function reading<T>(path: Buffer, call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw sourceError(path, messageOf(error), error);
  }
}

export function sourceError(path: Buffer, problem: string, cause?: unknown): ReplaybdError {
  return new ReplaybdError('ERR_EXT4_SOURCE', `${path.toString()}: cannot be copied: ${problem}`, {
    cause,
  });
}
