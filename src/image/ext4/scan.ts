import { setImmediate as nextTurn } from 'node:timers/promises';
import { EXT4_BLOCK_BYTES, EXT4_INODE_BYTES } from '../../../native/ext2fs.ts';
import { directoryBlockCount, FILE_TYPE } from './directory-blocks.ts';
import { openSource, storedRanges } from './file-data.ts';
import { readEntry, readNames, readRoot, type SourceEntry } from './source-tree.ts';

/** What a tree will need of a file system. */
export interface TreeSize {
  entries: number;
  /** Whole blocks of content and directories, and the inodes; without the holes of files. */
  bytes: number;
}

const ENTRIES_PER_TURN = 512;
const MIB = 1024 * 1024;
/** Of a disk, for one inode: what is usual. */
const BYTES_PER_INODE = 16_384;
/** Of the file system itself: ten, and lost+found. */
const RESERVED_INODES = 11;
const SPARE_INODES = 1024;

/** Walks a tree without reading content. Errors: ERR_EXT4_SOURCE; the signal's reason. */
export async function scanTree(rootfs: string, signal?: AbortSignal): Promise<TreeSize> {
  const size: TreeSize = { entries: 0, bytes: 0 };
  const pending = [readRoot(rootfs).path];
  for (let path = pending.pop(); path !== undefined; path = pending.pop()) {
    const names = readNames(path);
    size.bytes += directoryBlockCount(names) * EXT4_BLOCK_BYTES;
    for (const name of names) {
      const entry = readEntry(path, name);
      size.entries += 1;
      size.bytes += EXT4_INODE_BYTES + contentBytes(entry);
      if (entry.fileType === FILE_TYPE.directory) pending.push(entry.path);
      if (size.entries % ENTRIES_PER_TURN === 0) await nextTurn();
      signal?.throwIfAborted();
    }
  }
  return size;
}

/**
 * Content x 1.25 + 64 MiB, and with the default number of inodes room for a quarter more entries and
 * 1,024, as a multiple of 64 MiB, 256 MiB at least.
 */
export function defaultVirtualSizeBytes({ entries, bytes }: TreeSize, inodeCount?: number): number {
  const step = 64 * MIB;
  const forInodes =
    inodeCount === undefined ? (entries * 1.25 + SPARE_INODES) * BYTES_PER_INODE : 0;
  const wanted = Math.max(bytes * 1.25 + step, forInodes);
  return Math.max(256 * MIB, Math.ceil(wanted / step) * step);
}

/**
 * Follows from the disk's size alone, so that a layer stays the same whatever is put above it; where so
 * many do not do for the entries of all layers, a quarter more than those.
 */
export function defaultInodeCount(virtualSizeBytes: number, entries = 0): number {
  const usual = Math.floor(virtualSizeBytes / BYTES_PER_INODE);
  if (entries + RESERVED_INODES <= usual) return usual;
  return Math.ceil(entries * 1.25) + SPARE_INODES;
}

function contentBytes(entry: SourceEntry): number {
  if (entry.fileType !== FILE_TYPE.regular) return 0;
  if (!entry.hasHoles) return roundToBlocks(entry.sizeBytes);
  using file = openSource(entry);
  let bytes = 0;
  for (const range of storedRanges(file.fd, entry)) bytes += roundToBlocks(range.length);
  return bytes;
}

function roundToBlocks(bytes: number): number {
  return Math.ceil(bytes / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
}
