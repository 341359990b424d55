import type { ByteRange } from '../../base/range.ts';
import { EXT4_MAP_BYTES, EXT4_MAP_OFFSET, type Ext4Inode } from './ext4-node.ts';
import { damagedFs } from './file-system.ts';

const OLD_INODE_BYTES = 128;
const XATTR_MAGIC = 0xea020000;
const XATTR_ENTRY_BYTES = 16;
const XATTR_INDEX_SYSTEM = 7;

/**
 * Where inline data lies: 60 bytes in place of the inode's map, and what is longer as the value of the
 * attribute `system.data` in the inode's own room (Linux, fs/ext4/inline.c).
 */
export function inlineRanges(at: Ext4Inode, structure: string): ByteRange[] {
  const { inode, offset, disk } = at;
  const ranges = [{ offset: offset + EXT4_MAP_OFFSET, length: EXT4_MAP_BYTES }];
  if (inode.length <= OLD_INODE_BYTES + 4) return ranges;
  const attributes = OLD_INODE_BYTES + inode.readUInt16LE(OLD_INODE_BYTES);
  if (attributes + 8 > inode.length || inode.readUInt32LE(attributes) !== XATTR_MAGIC) {
    return ranges;
  }
  const first = attributes + 4;
  for (let entry = first; entry + XATTR_ENTRY_BYTES <= inode.length;) {
    const nameBytes = inode.readUInt8(entry);
    const index = inode.readUInt8(entry + 1);
    // The list ends with four zero bytes.
    if (nameBytes === 0 && index === 0) break;
    const nameAt = entry + XATTR_ENTRY_BYTES;
    if (
      index === XATTR_INDEX_SYSTEM &&
      inode.toString('latin1', nameAt, nameAt + nameBytes) === 'data'
    ) {
      const valueAt = first + inode.readUInt16LE(entry + 2);
      const length = inode.readUInt32LE(entry + 8);
      if (valueAt + length > inode.length) {
        const expected = `inline data inside ${inode.length} bytes`;
        throw damagedFs(disk, structure, expected, `${length} bytes at ${valueAt}`);
      }
      ranges.push({ offset: offset + valueAt, length });
      break;
    }
    entry = nameAt + Math.ceil(nameBytes / 4) * 4;
  }
  return ranges;
}
