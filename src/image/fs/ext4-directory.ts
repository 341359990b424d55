import type { Disk } from './disk.ts';
import type { Ext4Layout } from './ext4.ts';
import { damagedFs, type DirectoryEntry } from './file-system.ts';

const ENTRY_HEADER_BYTES = 8;
const DOT = '.'.charCodeAt(0);

/**
 * The entries of one directory block. Inner nodes of a hashed directory look like blocks of unused
 * entries, so a directory is read from front to back whether it is hashed or not. A name is a view of
 * `block`.
 */
export function* parseExt4Directory(
  block: Buffer,
  disk: Disk,
  structure: string,
  { hasFileTypes, blockBytes }: Ext4Layout,
): Generator<DirectoryEntry, void, undefined> {
  for (let at = 0; at + ENTRY_HEADER_BYTES <= block.length;) {
    const id = block.readUInt32LE(at);
    const entryBytes = lengthOf(block.readUInt16LE(at + 4), blockBytes);
    // Without file types the length has 16 bits, of which names leave the upper ones zero.
    const nameBytes = hasFileTypes ? block.readUInt8(at + 6) : block.readUInt16LE(at + 6);
    const isSound =
      entryBytes >= ENTRY_HEADER_BYTES + nameBytes &&
      entryBytes % 4 === 0 &&
      at + entryBytes <= block.length;
    if (!isSound) {
      const found = `an entry of ${entryBytes} bytes with a name of ${nameBytes}`;
      throw damagedFs(
        disk,
        `${structure}: directory`,
        `entries inside ${block.length} bytes`,
        found,
      );
    }
    const name = block.subarray(at + ENTRY_HEADER_BYTES, at + ENTRY_HEADER_BYTES + nameBytes);
    if (id !== 0 && nameBytes > 0 && !isDots(name)) yield { name, id };
    at += entryBytes;
  }
}

/** Blocks of 64 KiB do not fit 16 bits: their lengths keep two high bits in the low ones. */
function lengthOf(stored: number, blockBytes: number): number {
  if (blockBytes < 65_536) return stored;
  if (stored === 0 || stored === 0xffff) return blockBytes;
  return (stored & 0xfffc) | ((stored & 3) << 16);
}

/** Whether a name is `.` or `..`. */
export function isDots(name: Uint8Array): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT));
}
