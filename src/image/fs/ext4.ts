import { readMetadata } from './content.ts';
import type { Disk } from './disk.ts';
import { ext4GroupRanges, readGroup } from './ext4-groups.ts';
import { Ext4Node } from './ext4-node.ts';
import {
  damagedFs,
  unsupportedFs,
  type FileSystem,
  type FsNode,
  type MetadataRange,
} from './file-system.ts';

/** Features that change where things are, and are not read here (Linux, fs/ext4/ext4.h). */
const UNREAD_FEATURES = new Map([
  [0x1, 'compression'],
  [0x8, 'journal_dev'],
  [0x10, 'meta_bg'],
  [0x1000, 'dirdata'],
]);
/** filetype, recover, extents, 64bit, mmp, flex_bg, ea_inode, csum_seed, largedir, inline_data, encrypt,
 * casefold: either read here, or without a bearing on where files are. */
const READ_FEATURES = 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x38000;
const FEATURE_FILETYPE = 0x2;
const FEATURE_64BIT = 0x80;
/** Of the compatible features. */
const FEATURE_JOURNAL = 0x4;

const ROOT_INODE = 2;
const MAGIC = 0xef53;
const OLD_INODE_BYTES = 128;

/** What a superblock says, as far as finding files needs it. */
export interface Ext4Layout {
  readonly blockBytes: number;
  readonly inodeBytes: number;
  readonly inodesCount: number;
  readonly inodesPerGroup: number;
  readonly descriptorBytes: number;
  /** Byte of the disk where group descriptors begin. */
  readonly descriptorsOffset: number;
  readonly hasFileTypes: boolean;
  /** 0 without a journal in the file system. */
  readonly journalInode: number;
}

/**
 * ext2, ext3 or ext4 by its superblock (1,024 bytes at byte 1,024); null when it is another file
 * system. Checksums are not looked at: a wrong answer costs a prefetch. A journal that needs
 * recovery is not played. Errors: ERR_FS_DAMAGED, ERR_FS_UNSUPPORTED.
 */
export function openExt4(disk: Disk, superblock: Uint8Array): FileSystem | null {
  const view = new DataView(superblock.buffer, superblock.byteOffset, superblock.length);
  if (view.getUint16(56, true) !== MAGIC) return null;
  const incompatible = view.getUint32(96, true);
  const revision = view.getUint32(76, true);
  if (revision > 0) checkFeatures(disk, incompatible);
  const blockShift = view.getUint32(24, true);
  const layout: Ext4Layout = {
    blockBytes: blockShift <= 6 ? 1024 << blockShift : 0,
    inodeBytes: revision === 0 ? OLD_INODE_BYTES : view.getUint16(88, true),
    inodesCount: view.getUint32(0, true),
    inodesPerGroup: view.getUint32(40, true),
    descriptorBytes: (incompatible & FEATURE_64BIT) === 0 ? 32 : view.getUint16(254, true),
    descriptorsOffset: 0,
    hasFileTypes: (incompatible & FEATURE_FILETYPE) !== 0,
    journalInode:
      (view.getUint32(92, true) & FEATURE_JOURNAL) === 0 ? 0 : view.getUint32(224, true),
  };
  const { blockBytes, inodeBytes, inodesPerGroup, descriptorBytes } = layout;
  const isSound =
    blockBytes > 0 &&
    isPowerOfTwo(inodeBytes) &&
    inodeBytes >= OLD_INODE_BYTES &&
    inodeBytes <= blockBytes &&
    inodesPerGroup > 0 &&
    isPowerOfTwo(descriptorBytes) &&
    descriptorBytes >= 32 &&
    descriptorBytes <= 1024;
  if (!isSound) {
    const found = `blocks of 1024 << ${blockShift}, inodes of ${inodeBytes}, ${inodesPerGroup} a group`;
    throw damagedFs(disk, 'ext4 superblock', 'sizes that fit each other', found);
  }
  const firstBlock = view.getUint32(20, true);
  return new Ext4(disk, { ...layout, descriptorsOffset: (firstBlock + 1) * blockBytes });
}

function checkFeatures(disk: Disk, incompatible: number): void {
  for (const [bit, name] of UNREAD_FEATURES) {
    if ((incompatible & bit) !== 0) throw unsupportedFs(disk, 'ext4 superblock', name);
  }
  const unknown = (incompatible & ~READ_FEATURES) >>> 0;
  if (unknown === 0) return;
  throw unsupportedFs(disk, 'ext4 superblock', `feature 0x${unknown.toString(16)}`);
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

class Ext4 implements FileSystem {
  readonly type = 'ext4';
  readonly rootId = ROOT_INODE;
  readonly blockBytes: number;
  readonly #disk: Disk;
  readonly #layout: Ext4Layout;

  constructor(disk: Disk, layout: Ext4Layout) {
    this.#disk = disk;
    this.#layout = layout;
    this.blockBytes = layout.blockBytes;
  }

  on(disk: Disk): FileSystem {
    return new Ext4(disk, this.#layout);
  }

  async node(id: number): Promise<FsNode> {
    const layout = this.#layout;
    const offset = await this.nodeOffset(id);
    const inode = await readMetadata(this.#disk, offset, layout.inodeBytes, `ext4 inode ${id}`);
    return new Ext4Node({ id, disk: this.#disk, layout, inode, offset });
  }

  async nodeOffset(id: number): Promise<number> {
    const { inodesCount, inodesPerGroup, inodeBytes } = this.#layout;
    if (!(id >= 1 && id <= inodesCount)) {
      throw damagedFs(this.#disk, `ext4 inode ${id}`, `numbers from 1 to ${inodesCount}`, id);
    }
    const group = Math.floor((id - 1) / inodesPerGroup);
    const { inodeTable } = await readGroup(this.#disk, this.#layout, group);
    return inodeTable + ((id - 1) % inodesPerGroup) * inodeBytes;
  }

  async *metadata(): AsyncGenerator<MetadataRange, void, undefined> {
    yield* ext4GroupRanges(this.#disk, this.#layout);
    const { journalInode } = this.#layout;
    if (journalInode === 0) return;
    const journal = await this.node(journalInode);
    for (const { offset, length } of await journal.extents()) {
      yield { kind: 'journal', offset, length };
    }
  }
}
