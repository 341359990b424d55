import { EXT4_BLOCK_BYTES } from '../../../native/ext2fs.ts';

export interface DirectoryEntry {
  name: Buffer;
  inode: number;
  /** One of FILE_TYPE. */
  fileType: number;
}

/** File types as directory entries tell them. */
export const FILE_TYPE = {
  regular: 1,
  directory: 2,
  character: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
} as const;

/** The last 12 bytes of a block hold its checksum, disguised as an unused entry. */
const TAIL_BYTES = 12;
const TAIL_FILE_TYPE = 0xde;
const USABLE_BYTES = EXT4_BLOCK_BYTES - TAIL_BYTES;
const ENTRY_HEAD_BYTES = 8;

/** Blocks that a directory with these names (`.` and `..` not counted) takes. */
export function directoryBlockCount(names: readonly Buffer[]): number {
  let blocks = 1;
  let used = entryBytes(1) + entryBytes(2);
  for (const name of names) {
    const bytes = entryBytes(name.length);
    if (used + bytes > USABLE_BYTES) {
      blocks += 1;
      used = 0;
    }
    used += bytes;
  }
  return blocks;
}

/**
 * A linear directory's blocks, in order, checksums left to be filled in. Entries keep their order;
 * as many blocks come as directoryBlockCount says.
 */
export function directoryBlocks(
  self: number,
  parent: number,
  entries: readonly DirectoryEntry[],
): Generator<Buffer> {
  const dots = [
    { name: Buffer.from('.'), inode: self, fileType: FILE_TYPE.directory },
    { name: Buffer.from('..'), inode: parent, fileType: FILE_TYPE.directory },
  ];
  return entryBlocks([...dots, ...entries]);
}

/** Blocks that continue a directory: entries alone; one block at least. */
export function* entryBlocks(entries: readonly DirectoryEntry[]): Generator<Buffer> {
  let block = emptyBlock();
  let used = 0;
  let lastAt = 0;
  for (const entry of entries) {
    const bytes = entryBytes(entry.name.length);
    if (used + bytes > USABLE_BYTES) {
      closeBlock(block, lastAt);
      yield block;
      block = emptyBlock();
      used = 0;
    }
    writeEntry(block, used, bytes, entry);
    lastAt = used;
    used += bytes;
  }
  closeBlock(block, lastAt);
  yield block;
}

/** A block without entries. */
export function unusedBlock(): Buffer {
  const block = emptyBlock();
  closeBlock(block, 0);
  return block;
}

/** A record of a directory block; `inode` is 0 where it is free space. */
export interface DirectoryRecord extends DirectoryEntry {
  at: number;
  bytes: number;
}

/** All records of a block, as libext2fs checked them: they touch, and names lie inside. */
export function* recordsOf(block: Buffer): Generator<DirectoryRecord> {
  let at = 0;
  while (at < EXT4_BLOCK_BYTES) {
    const bytes = block.readUInt16LE(at + 4);
    const nameBytes = block.readUInt8(at + 6);
    const fileType = block.readUInt8(at + 7);
    const inode = block.readUInt32LE(at);
    if (bytes < ENTRY_HEAD_BYTES + nameBytes || bytes % 4 !== 0 || at + bytes > EXT4_BLOCK_BYTES) {
      throw new RangeError(`a directory record of ${bytes} bytes at byte ${at} of its block`);
    }
    const isTail = at === USABLE_BYTES && inode === 0 && fileType === TAIL_FILE_TYPE;
    if (isTail) return;
    const name = block.subarray(at + ENTRY_HEAD_BYTES, at + ENTRY_HEAD_BYTES + nameBytes);
    yield { at, bytes, inode, fileType, name };
    at += bytes;
  }
}

/** Takes an entry out of a block: its space goes to the record before it. */
export function removeRecord(block: Buffer, at: number): void {
  let before: DirectoryRecord | null = null;
  for (const record of recordsOf(block)) {
    if (record.at === at) {
      if (before === null) block.writeUInt32LE(0, at);
      else block.writeUInt16LE(before.bytes + record.bytes, before.at + 4);
      return;
    }
    before = record;
  }
}

/** Puts an entry into the first space that is large enough; false when there is none. */
export function insertRecord(block: Buffer, entry: DirectoryEntry): boolean {
  const wanted = entryBytes(entry.name.length);
  for (const { at, bytes, inode, name } of recordsOf(block)) {
    const used = inode === 0 ? 0 : entryBytes(name.length);
    if (bytes - used < wanted) continue;
    if (used > 0) block.writeUInt16LE(used, at + 4);
    writeEntry(block, at + used, bytes - used, entry);
    return true;
  }
  return false;
}

/** Lets an entry stand for another file. */
export function replaceRecord(block: Buffer, at: number, inode: number, fileType: number): void {
  block.writeUInt32LE(inode, at);
  block.writeUInt8(fileType, at + 7);
}

function entryBytes(nameBytes: number): number {
  return (ENTRY_HEAD_BYTES + nameBytes + 3) & ~3;
}

function writeEntry(block: Buffer, at: number, bytes: number, entry: DirectoryEntry): void {
  block.writeUInt32LE(entry.inode, at);
  block.writeUInt16LE(bytes, at + 4);
  block.writeUInt8(entry.name.length, at + 6);
  block.writeUInt8(entry.fileType, at + 7);
  entry.name.copy(block, at + ENTRY_HEAD_BYTES);
}

function emptyBlock(): Buffer {
  const block = Buffer.alloc(EXT4_BLOCK_BYTES);
  block.writeUInt16LE(TAIL_BYTES, USABLE_BYTES + 4);
  block.writeUInt8(TAIL_FILE_TYPE, USABLE_BYTES + 7);
  return block;
}

/** The last entry takes all space that is left. */
function closeBlock(block: Buffer, lastAt: number): void {
  block.writeUInt16LE(USABLE_BYTES - lastAt, lastAt + 4);
}
