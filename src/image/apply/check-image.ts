import { EXT4_BLOCK_BYTES, EXT4_INODE_BYTES } from '../../../native/ext2fs.ts';
import type { Ext2Image } from '../../../native/ext2fs-io.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { imageError } from './errors.ts';

const SUPERBLOCK_AT = 1024;
const SUPERBLOCK_BYTES = 1024;
const MAGIC = 0xef53;

/** Byte offsets in struct ext4_super_block (Linux, Documentation/filesystems/ext4/super.rst). */
const AT = {
  blockBytesLog: 0x18,
  magic: 0x38,
  state: 0x3a,
  inodeBytes: 0x58,
  incompatible: 0x60,
  readOnlyCompatible: 0x64,
  lastOrphan: 0xe8,
} as const;

const STATE_CLEAN = 1;
const STATE_ERRORS = 2;
const NEEDS_RECOVERY = 0x4;
const ORPHANS_PRESENT = 0x1_0000;
/** filetype, meta_bg, extents, 64bit, flex_bg, metadata_csum_seed, large_dir. */
const KNOWN_INCOMPATIBLE = 0x2 | 0x10 | 0x40 | 0x80 | 0x200 | 0x2000 | 0x4000;
const FILE_TYPES = 0x2;
/** sparse_super, large_file, huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum. */
const KNOWN_READ_ONLY = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400;

/**
 * Refuses what a layer cannot be applied to: something else than ext4, a file system with features
 * that we would break, and one that nobody has put in order after use.
 * Errors: ERR_APPLY_NOT_EXT4, ERR_APPLY_IMAGE, ERR_APPLY_FEATURES.
 */
export function checkImage(image: Ext2Image, name: string): void {
  const superblock = Buffer.alloc(SUPERBLOCK_BYTES);
  if (image.sizeBytes >= SUPERBLOCK_AT + SUPERBLOCK_BYTES) image.read(SUPERBLOCK_AT, superblock);
  if (superblock.readUInt16LE(AT.magic) !== MAGIC) {
    throw new ReplaybdError(
      'ERR_APPLY_NOT_EXT4',
      `${name}: expected an ext4 file system, found none. Make one first (--mkfs).`,
    );
  }
  const incompatible = superblock.readUInt32LE(AT.incompatible);
  const readOnly = superblock.readUInt32LE(AT.readOnlyCompatible);
  const state = superblock.readUInt16LE(AT.state);
  const isOpen =
    (incompatible & NEEDS_RECOVERY) !== 0 ||
    (readOnly & ORPHANS_PRESENT) !== 0 ||
    superblock.readUInt32LE(AT.lastOrphan) !== 0 ||
    (state & (STATE_CLEAN | STATE_ERRORS)) !== STATE_CLEAN;
  if (isOpen) throw imageError('it was not unmounted cleanly, or has errors.');

  const blockBytes = 1024 * 2 ** superblock.readUInt32LE(AT.blockBytesLog);
  const unknown =
    (incompatible & ~KNOWN_INCOMPATIBLE) !== 0 ||
    (readOnly & ~KNOWN_READ_ONLY) !== 0 ||
    (incompatible & FILE_TYPES) === 0;
  const inodeBytes = superblock.readUInt16LE(AT.inodeBytes);
  if (unknown || blockBytes !== EXT4_BLOCK_BYTES || inodeBytes !== EXT4_INODE_BYTES) {
    throw new ReplaybdError(
      'ERR_APPLY_FEATURES',
      `${name}: expected ext4 of ${EXT4_BLOCK_BYTES}-byte blocks and ${EXT4_INODE_BYTES}-byte ` +
        `inodes with usual features, found blocks of ${blockBytes}, inodes of ${inodeBytes}, ` +
        `features ${incompatible.toString(16)} and ${readOnly.toString(16)} (dumpe2fs names them).`,
    );
  }
}
