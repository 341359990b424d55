import { fsReadLimits } from '../../base/limits.ts';
import { readMetadata } from './content.ts';
import type { Disk } from './disk.ts';
import type { Ext4Layout } from './ext4.ts';
import { fsTooLarge, type MetadataKind, type MetadataRange } from './file-system.ts';

/** Where a block group's structures begin, in bytes of the disk. */
export interface Ext4Group {
  readonly blockBitmap: number;
  readonly inodeBitmap: number;
  readonly inodeTable: number;
}

/** From this size on, descriptors have high halves of block numbers. */
const LARGE_DESCRIPTOR_BYTES = 64;

/** Reads one group descriptor. Errors: ERR_FS_DAMAGED. */
export async function readGroup(disk: Disk, layout: Ext4Layout, group: number): Promise<Ext4Group> {
  const { descriptorBytes, descriptorsOffset, blockBytes } = layout;
  const offset = descriptorsOffset + group * descriptorBytes;
  const name = `ext4 descriptor of group ${group}`;
  const descriptor = await readMetadata(disk, offset, descriptorBytes, name);
  const blockAt = (low: number): number => {
    const isLarge = descriptorBytes >= LARGE_DESCRIPTOR_BYTES;
    const high = isLarge ? descriptor.readUInt32LE(low + 32) : 0;
    return (high * 2 ** 32 + descriptor.readUInt32LE(low)) * blockBytes;
  };
  return { blockBitmap: blockAt(0), inodeBitmap: blockAt(4), inodeTable: blockAt(8) };
}

/**
 * The superblock with the group descriptors, then each group's bitmaps and inode table. Errors:
 * ERR_FS_DAMAGED; ERR_FS_LIMIT for too many groups.
 */
export async function* ext4GroupRanges(
  disk: Disk,
  layout: Ext4Layout,
): AsyncGenerator<MetadataRange, void, undefined> {
  const { inodesCount, inodesPerGroup, inodeBytes, blockBytes } = layout;
  const groups = Math.ceil(inodesCount / inodesPerGroup);
  if (groups > fsReadLimits.groupsMax) {
    throw fsTooLarge(disk, 'ext4 superblock: groups', fsReadLimits.groupsMax);
  }
  const descriptorsEnd = layout.descriptorsOffset + groups * layout.descriptorBytes;
  const range = (kind: MetadataKind, offset: number, length: number): MetadataRange => {
    return { kind, offset, length };
  };
  yield range('superblock', 0, Math.ceil(descriptorsEnd / blockBytes) * blockBytes);
  for (let group = 0; group < groups; group += 1) {
    const { blockBitmap, inodeBitmap, inodeTable } = await readGroup(disk, layout, group);
    yield range('bitmaps', blockBitmap, blockBytes);
    yield range('bitmaps', inodeBitmap, blockBytes);
    yield range('inode table', inodeTable, inodesPerGroup * inodeBytes);
  }
}
