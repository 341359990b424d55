import { EXT4_BLOCK_BYTES, EXT4_INODE_BYTES, type FileExtent } from '../../../native/ext2fs.ts';

/** What an inode says about a file, in the source's terms. */
export interface FileAttributes {
  /** Type and permission bits, as in st_mode. */
  mode: number;
  uid: number;
  gid: number;
  mtimeNs: bigint;
}

/** What an inode's i_block holds: where content is, a short link's target, or a device number. */
export type InodeBody =
  | { kind: 'extents'; sizeBytes: number; extents: readonly FileExtent[] }
  | { kind: 'target'; target: Buffer }
  | { kind: 'device'; major: number; minor: number }
  | { kind: 'none' };

/** A symbolic link's target up to this length lives in the inode. */
export const SHORT_TARGET_BYTES_MAX = 59;
/** Extents that fit into the inode; a tree takes more. */
export const INODE_EXTENTS_MAX = 4;
/** Blocks of one extent that is not marked unwritten. */
export const EXTENT_BLOCKS_MAX = 32_768;

const TYPE_BITS = 0o170000;
const TYPE_REGULAR = 0o100000;
const TYPE_DIRECTORY = 0o040000;
const TYPE_SYMLINK = 0o120000;

const INDEX_FLAG = 0x1000;
const EXTENTS_FLAG = 0x80000;
const INLINE_DATA_FLAG = 0x1000_0000;
/** Encrypted, or with names that are compared without case. */
const STRANGE_NAMES_FLAGS = 0x800 | 0x4000_0000;
const EXTENT_MAGIC = 0xf30a;
const EXTRA_BYTES = 32;

/** Byte offsets in struct ext4_inode (Linux, Documentation/filesystems/ext4/inodes.rst). */
const AT = {
  mode: 0,
  uidLow: 2,
  sizeLow: 4,
  atime: 8,
  ctime: 12,
  mtime: 16,
  dtime: 20,
  gidLow: 24,
  links: 26,
  blocksLow: 28,
  flags: 32,
  body: 40,
  sizeHigh: 108,
  blocksHigh: 116,
  uidHigh: 120,
  gidHigh: 122,
  extraBytes: 128,
  ctimeExtra: 132,
  mtimeExtra: 136,
  atimeExtra: 140,
  crtime: 144,
  crtimeExtra: 148,
} as const;

/**
 * A new inode of 256 bytes. All four times are the source's mtime, so that nothing depends on when
 * the image was made. More than INODE_EXTENTS_MAX extents are left out, for the tree to take.
 */
export function encodeInode(attributes: FileAttributes, links: number, body: InodeBody): Buffer {
  const bytes = Buffer.alloc(EXT4_INODE_BYTES);
  bytes.writeUInt16LE(EXTRA_BYTES, AT.extraBytes);
  writeAttributes(bytes, attributes);
  writeTime(bytes, AT.crtime, AT.crtimeExtra, attributes.mtimeNs);
  writeLinks(bytes, links);
  if (body.kind === 'extents') writeExtents(bytes, body.sizeBytes, body.extents);
  if (body.kind === 'target') {
    bytes.writeUInt32LE(body.target.length, AT.sizeLow);
    body.target.copy(bytes, AT.body);
  }
  if (body.kind === 'device') writeDevice(bytes, body.major, body.minor);
  return bytes;
}

/** Replaces owner, permissions and times of an existing inode, but not its birth. */
export function writeAttributes(bytes: Buffer, attributes: FileAttributes): void {
  const { mode, uid, gid, mtimeNs } = attributes;
  bytes.writeUInt16LE(mode, AT.mode);
  bytes.writeUInt16LE(uid & 0xffff, AT.uidLow);
  bytes.writeUInt16LE(uid >>> 16, AT.uidHigh);
  bytes.writeUInt16LE(gid & 0xffff, AT.gidLow);
  bytes.writeUInt16LE(gid >>> 16, AT.gidHigh);
  writeTime(bytes, AT.atime, AT.atimeExtra, mtimeNs);
  writeTime(bytes, AT.ctime, AT.ctimeExtra, mtimeNs);
  writeTime(bytes, AT.mtime, AT.mtimeExtra, mtimeNs);
}

export function readMode(bytes: Buffer): number {
  return bytes.readUInt16LE(AT.mode);
}

export function readLinks(bytes: Buffer): number {
  return bytes.readUInt16LE(AT.links);
}

export function writeLinks(bytes: Buffer, links: number): void {
  bytes.writeUInt16LE(links, AT.links);
}

export function hasExtents(bytes: Buffer): boolean {
  return (bytes.readUInt32LE(AT.flags) & EXTENTS_FLAG) !== 0;
}

/** The inode maps blocks, in either way; otherwise its body holds something else. */
export function hasBlocks(bytes: Buffer): boolean {
  const type = readMode(bytes) & TYPE_BITS;
  const isLongLink = type === TYPE_SYMLINK && readSize(bytes) > SHORT_TARGET_BYTES_MAX;
  return hasExtents(bytes) || type === TYPE_REGULAR || type === TYPE_DIRECTORY || isLongLink;
}

/** A directory's blocks hold hash trees beside its entries. */
export function hasIndex(bytes: Buffer): boolean {
  return (bytes.readUInt32LE(AT.flags) & INDEX_FLAG) !== 0;
}

export function clearIndex(bytes: Buffer): void {
  bytes.writeUInt32LE((bytes.readUInt32LE(AT.flags) & ~INDEX_FLAG) >>> 0, AT.flags);
}

/** A directory whose entries are plain, in blocks. */
export function hasPlainEntries(bytes: Buffer): boolean {
  return (bytes.readUInt32LE(AT.flags) & (INLINE_DATA_FLAG | STRANGE_NAMES_FLAGS)) === 0;
}

export function readSize(bytes: Buffer): number {
  return bytes.readUInt32LE(AT.sizeHigh) * 2 ** 32 + bytes.readUInt32LE(AT.sizeLow);
}

/** The target of a symbolic link that lives in the inode; null when it has a block. */
export function readShortTarget(bytes: Buffer): Buffer | null {
  const sizeBytes = readSize(bytes);
  if (hasExtents(bytes) || sizeBytes > SHORT_TARGET_BYTES_MAX) return null;
  return Buffer.from(bytes.subarray(AT.body, AT.body + sizeBytes));
}

/** Makes a directory, whose blocks were mapped already, longer. */
export function growDirectory(bytes: Buffer, addedBlocks: number): void {
  bytes.writeUInt32LE(readSize(bytes) + addedBlocks * EXT4_BLOCK_BYTES, AT.sizeLow);
  const sectors = bytes.readUInt32LE(AT.blocksLow) + (addedBlocks * EXT4_BLOCK_BYTES) / 512;
  bytes.writeUInt32LE(sectors, AT.blocksLow);
}

/** Marks an inode as deleted: no links, and a date of deletion. */
export function writeDeleted(bytes: Buffer, seconds: number): void {
  writeLinks(bytes, 0);
  bytes.writeUInt32LE(seconds, AT.dtime);
}

/** 34 bits of signed seconds: the low 32, and 2 more beside 30 bits of nanoseconds. Times beyond
 * (before 1901, after 2446) become the nearest one, as in the kernel. */
function writeTime(bytes: Buffer, at: number, extraAt: number, timeNs: bigint): void {
  const billion = 1_000_000_000n;
  const nanoseconds = ((timeNs % billion) + billion) % billion;
  const seconds = (timeNs - nanoseconds) / billion;
  const clamped = clamp(seconds, -(2n ** 31n), 2n ** 34n - 2n ** 31n - 1n);
  const low = BigInt.asIntN(32, clamped);
  const epoch = Number((clamped - low) >> 32n) & 3;
  bytes.writeInt32LE(Number(low), at);
  bytes.writeUInt32LE(((Number(nanoseconds) << 2) | epoch) >>> 0, extraAt);
}

function clamp(value: bigint, min: bigint, max: bigint): bigint {
  if (value < min) return min;
  return value > max ? max : value;
}

function writeExtents(bytes: Buffer, sizeBytes: number, extents: readonly FileExtent[]): void {
  bytes.writeUInt32LE(sizeBytes % 2 ** 32, AT.sizeLow);
  bytes.writeUInt32LE(Math.floor(sizeBytes / 2 ** 32), AT.sizeHigh);
  const blocks = extents.reduce((sum, extent) => sum + extent.count, 0);
  const sectors = blocks * (EXT4_BLOCK_BYTES / 512);
  bytes.writeUInt32LE(sectors % 2 ** 32, AT.blocksLow);
  bytes.writeUInt16LE(Math.floor(sectors / 2 ** 32), AT.blocksHigh);
  bytes.writeUInt32LE(EXTENTS_FLAG, AT.flags);

  const inline = extents.length <= INODE_EXTENTS_MAX ? extents : [];
  bytes.writeUInt16LE(EXTENT_MAGIC, AT.body);
  bytes.writeUInt16LE(inline.length, AT.body + 2);
  bytes.writeUInt16LE(INODE_EXTENTS_MAX, AT.body + 4);
  for (const [index, { logical, block, count }] of inline.entries()) {
    const at = AT.body + 12 * (index + 1);
    bytes.writeUInt32LE(logical, at);
    bytes.writeUInt16LE(count, at + 4);
    bytes.writeUInt16LE(Math.floor(block / 2 ** 32), at + 6);
    bytes.writeUInt32LE(block % 2 ** 32, at + 8);
  }
}

/** Small numbers take the old 16-bit form, others the new one in the second word. */
function writeDevice(bytes: Buffer, major: number, minor: number): void {
  if (major < 256 && minor < 256) {
    bytes.writeUInt32LE((major << 8) | minor, AT.body);
  } else {
    const device = (minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12);
    bytes.writeUInt32LE(device >>> 0, AT.body + 4);
  }
}
