import { ReplaybdError } from '../../base/errors.ts';
import type { Disk } from './disk.ts';
import { openErofs } from './erofs.ts';
import { openExt4 } from './ext4.ts';
import type { FileSystem } from './file-system.ts';

const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_BYTES = 1024;

/**
 * Opens the file system that begins at the disk's first byte: ext2, ext3, ext4 or erofs. Reads only
 * the superblock. Errors: ERR_FS_UNKNOWN, ERR_FS_DAMAGED, ERR_FS_UNSUPPORTED.
 */
export async function openFileSystem(disk: Disk): Promise<FileSystem> {
  if (disk.sizeBytes >= SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES) {
    const superblock = await disk.read(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES);
    const found = openExt4(disk, superblock) ?? openErofs(disk, superblock);
    if (found !== null) return found;
  }
  throw new ReplaybdError(
    'ERR_FS_UNKNOWN',
    `${disk.name}: expected ext4 or erofs at the disk's first byte, found neither. ` +
      'Files can be found in these file systems only.',
  );
}
