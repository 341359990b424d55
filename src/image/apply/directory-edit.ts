import type { Ext2Filesystem } from '../../../native/ext2fs.ts';
import {
  directoryBlocks,
  entryBlocks,
  insertRecord,
  recordsOf,
  removeRecord,
  replaceRecord,
  unusedBlock,
  type DirectoryEntry,
} from '../ext4/directory-blocks.ts';
import { placesOf, type InodeWriter } from '../ext4/inode-writer.ts';
import { clearIndex, growDirectory, hasIndex } from '../ext4/inode.ts';
import { storedBlocks, type Directory, type Entry } from './directory.ts';

/**
 * Makes the blocks of a directory on disk hold what its entries became, changing as few as it can:
 * entries go and come where they are, new ones fill the space there is, the rest goes to new blocks.
 * A directory with a hash tree is laid out afresh, without one. The inode then tells its new size;
 * the rest of it is the caller's. Errors: ERR_APPLY_IMAGE, ERR_EXT4_FULL, ERR_EXT4_LIBRARY.
 */
export function editDirectory(
  filesystem: Ext2Filesystem,
  inodes: InodeWriter,
  directory: Directory,
): void {
  const { inode } = directory;
  const inodeBytes = inodes.read(inode);
  const blocks = [...storedBlocks(filesystem, inode, inodeBytes)];
  const isIndexed = hasIndex(inodeBytes);
  const { changed, added } = isIndexed ? layOut(directory, blocks) : edit(directory, blocks);
  for (const { place, bytes } of changed) filesystem.writeDirectoryBlock(inode, place, bytes);

  const places = added.length === 0 ? [] : placesOf(inodes.allocate(added.length));
  for (const [index, place] of places.entries()) {
    filesystem.setBlockOf(inode, blocks.length + index, place);
    filesystem.writeDirectoryBlock(inode, place, added[index] ?? unusedBlock());
  }
  if (places.length === 0 && !isIndexed) return;
  const grown = inodes.read(inode);
  growDirectory(grown, places.length);
  clearIndex(grown);
  filesystem.writeInode(inode, grown);
}

interface StoredBlock {
  place: number;
  bytes: Buffer;
}

interface Edited {
  /** Of the blocks there are. */
  changed: StoredBlock[];
  /** Blocks that are to follow them. */
  added: Buffer[];
}

function edit(directory: Directory, blocks: readonly StoredBlock[]): Edited {
  const changed = new Set<StoredBlock>();
  const missing = new Map(directory.entries);
  for (const block of blocks) {
    for (const { at, inode, fileType, name } of [...recordsOf(block.bytes)]) {
      const text = name.toString('latin1');
      if (inode === 0 || text === '.' || text === '..') continue;
      const entry = directory.entries.get(text);
      missing.delete(text);
      if (entry?.inode === inode && entry.fileType === fileType) continue;
      if (entry === undefined) removeRecord(block.bytes, at);
      else replaceRecord(block.bytes, at, entry.inode, entry.fileType);
      changed.add(block);
    }
  }
  const left = [...missing].map(toRecord);
  let done = 0;
  for (const block of blocks) {
    let entry = left[done];
    while (entry !== undefined && insertRecord(block.bytes, entry)) {
      changed.add(block);
      done += 1;
      entry = left[done];
    }
    if (entry === undefined) break;
  }
  const added = done === left.length ? [] : [...entryBlocks(left.slice(done))];
  return { changed: [...changed], added };
}

function layOut(directory: Directory, blocks: readonly StoredBlock[]): Edited {
  const entries = [...directory.entries].map(toRecord);
  const bytes = [...directoryBlocks(directory.inode, directory.parent.inode, entries)];
  const changed = blocks.map(({ place }, index) => ({
    place,
    bytes: bytes[index] ?? unusedBlock(),
  }));
  return { changed, added: bytes.slice(blocks.length) };
}

/** As a directory's blocks hold it. */
export function toRecord([name, { inode, fileType }]: [string, Entry]): DirectoryEntry {
  return { name: Buffer.from(name, 'latin1'), inode, fileType };
}
