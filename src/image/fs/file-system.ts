import { formatError, type ErrorCode, type ReplaybdError } from '../../base/errors.ts';
import type { ByteRange } from '../../base/range.ts';
import type { Disk } from './disk.ts';

/** Bytes of the disk that hold a part of a file. */
export interface FileExtent {
  /** Byte of the file; of a compressed file, of its uncompressed bytes. */
  readonly fileOffset: number;
  /** Byte of the disk. */
  readonly offset: number;
  /** Bytes of the disk; fewer than of the file where it is compressed. */
  readonly length: number;
}

export type NodeKind = 'file' | 'directory' | 'symlink' | 'other';

/** A name in a directory. Names are bytes: any but NUL and '/' may occur. */
export interface DirectoryEntry {
  readonly name: Buffer;
  /** Of the node. */
  readonly id: number;
}

/** An inode. Its methods reject with ERR_FS_DAMAGED, ERR_FS_UNSUPPORTED, ERR_FS_LIMIT. */
export interface FsNode {
  /** Inode number (ext4) or nid (erofs). */
  readonly id: number;
  readonly kind: NodeKind;
  readonly sizeBytes: number;
  /** The bytes of the disk that the inode has, attributes beside it included. */
  readonly inode: ByteRange;
  /** Its extents are of compressed bytes: each unpacks to what lies before the next one. */
  readonly isCompressed: boolean;
  /** Where its content lies, in the file's order; what reads as zeros is left out. */
  extents(): Promise<FileExtent[]>;
  /** A directory's names, `.` and `..` left out. */
  entries(): AsyncGenerator<DirectoryEntry, void, undefined>;
  /** A symbolic link's target. */
  readLink(): Promise<Buffer>;
}

/** What a part of the disk is that belongs to no file. */
export type MetadataKind = 'superblock' | 'bitmaps' | 'inode table' | 'journal';

/** A part of the disk that has its place whatever files there are. */
export interface MetadataRange extends ByteRange {
  readonly kind: MetadataKind;
}

/** A file system that is read in user space, straight from the disk. */
export interface FileSystem {
  readonly type: 'ext4' | 'erofs';
  readonly blockBytes: number;
  readonly rootId: number;
  node(id: number): Promise<FsNode>;
  /** Byte of the disk where a node's inode begins. The inode is not read. */
  nodeOffset(id: number): Promise<number>;
  /** Parts of the disk that belong to no file; they may overlap. */
  metadata(): AsyncGenerator<MetadataRange, void, undefined>;
  /** The same file system, read through another view of its disk. */
  on(disk: Disk): FileSystem;
}

/** An error for structures that break the file system's rules. */
export function damagedFs(
  disk: Disk,
  structure: string,
  expected: string,
  found: string | number,
): ReplaybdError {
  return fsError('ERR_FS_DAMAGED', disk, structure, expected, String(found));
}

/** An error for what is sound, and not read here. */
export function unsupportedFs(disk: Disk, structure: string, found: string): ReplaybdError {
  return fsError('ERR_FS_UNSUPPORTED', disk, structure, 'features that are read here', found);
}

/** An error for what is larger than is read here. */
export function fsTooLarge(disk: Disk, structure: string, max: number): ReplaybdError {
  return fsError('ERR_FS_LIMIT', disk, structure, `at most ${max}`, 'more');
}

function fsError(
  code: ErrorCode,
  disk: Disk,
  structure: string,
  expected: string,
  found: string,
): ReplaybdError {
  return formatError(code, { name: disk.name, structure, expected, found });
}
