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

/** Content x 1.25 + 64 MiB, as a multiple of 64 MiB, 256 MiB at least. */
export function defaultVirtualSizeBytes(contentBytesSum: number): number {
  const step = 64 * MIB;
  const wanted = contentBytesSum * 1.25 + step;
  return Math.max(256 * MIB, Math.ceil(wanted / step) * step);
}

/** One inode for 16 KiB, which is usual, or a quarter more than the entries when that is more. */
export function inodeCountFor(virtualSizeBytes: number, entries: number): number {
  return Math.max(Math.floor(virtualSizeBytes / 16_384), Math.ceil(entries * 1.25) + 1024);
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
