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
export function* directoryBlocks(
  self: number,
  parent: number,
  entries: readonly DirectoryEntry[],
): Generator<Buffer> {
  const dots = [
    { name: Buffer.from('.'), inode: self, fileType: FILE_TYPE.directory },
    { name: Buffer.from('..'), inode: parent, fileType: FILE_TYPE.directory },
  ];
  let block = emptyBlock();
  let used = 0;
  let lastAt = 0;
  for (const entry of [...dots, ...entries]) {
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
