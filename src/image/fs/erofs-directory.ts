import type { Disk } from './disk.ts';
import { isDots } from './ext4-directory.ts';
import { damagedFs, type DirectoryEntry } from './file-system.ts';

const ENTRY_BYTES = 12;

/**
 * The entries of one directory block: entries of a fixed size, then their names. The first entry's
 * name begins where the entries end; the last name ends with the block, or before, at a NUL. A name
 * is a view of `block`.
 */
export function* parseErofsDirectory(
  block: Buffer,
  disk: Disk,
  structure: string,
): Generator<DirectoryEntry, void, undefined> {
  const namesAt = block.length < ENTRY_BYTES ? 0 : block.readUInt16LE(8);
  if (namesAt < ENTRY_BYTES || namesAt % ENTRY_BYTES !== 0 || namesAt > block.length) {
    throw damagedFs(disk, `${structure}: directory`, 'names behind whole entries', namesAt);
  }
  const count = namesAt / ENTRY_BYTES;
  for (let i = 0; i < count; i += 1) {
    const at = i * ENTRY_BYTES;
    const nameAt = block.readUInt16LE(at + 8);
    const isLast = i + 1 === count;
    const end = isLast ? block.length : block.readUInt16LE(at + ENTRY_BYTES + 8);
    const nid = block.readBigUInt64LE(at);
    if (nameAt < namesAt || end < nameAt || end > block.length || nid > 2n ** 48n) {
      const found = `a name from ${nameAt} to ${end} of inode ${nid}`;
      throw damagedFs(disk, `${structure}: directory`, `names inside ${block.length} bytes`, found);
    }
    const room = block.subarray(nameAt, end);
    const nul = isLast ? room.indexOf(0) : -1;
    const name = nul < 0 ? room : room.subarray(0, nul);
    if (name.length > 0 && !isDots(name)) yield { name, id: Number(nid) };
  }
}
