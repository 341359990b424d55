import { readMetadata } from './content.ts';
import type { Disk } from './disk.ts';
import { ErofsNode } from './erofs-node.ts';
import {
  damagedFs,
  unsupportedFs,
  type FileSystem,
  type FsNode,
  type MetadataRange,
} from './file-system.ts';

const MAGIC = 0xe0f5e1e2;
/** Zero padding, big physical clusters, chunks, device tables, tail packing, fragments, long xattr
 * prefixes: what lies beyond, as 48-bit addresses, moves fields (Linux, fs/erofs/erofs_fs.h). */
const READ_FEATURES = 0x7f;
/** Big physical clusters, tail packing, fragments: each comes with a header before every index. */
const FEATURES_MAP_HEADER = 0x2 | 0x10 | 0x20;
const INODE_SLOT_BYTES = 32;
const SUPERBLOCK_END = 1024 + 128;
const COMPACT_INODE_BYTES = 32;
const EXTENDED_INODE_BYTES = 64;

/** What a superblock says, as far as finding files needs it. */
export interface ErofsLayout {
  readonly blockBytes: number;
  readonly metaOffset: number;
  /** Of files with an index of 8 bytes an entry; all others have one. */
  readonly hasMapHeaders: boolean;
}

/**
 * erofs by its superblock (1,024 bytes at byte 1,024); null when it is another file system. Checksums
 * are not looked at: a wrong answer costs a prefetch. Errors: ERR_FS_DAMAGED, ERR_FS_UNSUPPORTED.
 */
export function openErofs(disk: Disk, superblock: Uint8Array): FileSystem | null {
  const view = new DataView(superblock.buffer, superblock.byteOffset, superblock.length);
  if (view.getUint32(0, true) !== MAGIC) return null;
  const blockShift = view.getUint8(12);
  const directoryShift = view.getUint8(90);
  const features = view.getUint32(80, true);
  const unknown = (features & ~READ_FEATURES) >>> 0;
  if (unknown !== 0) {
    throw unsupportedFs(disk, 'erofs superblock', `feature 0x${unknown.toString(16)}`);
  }
  if (blockShift < 9 || blockShift > 16 || directoryShift !== 0) {
    const found = `2^${blockShift}, directory blocks of 2^${directoryShift}`;
    throw damagedFs(disk, 'erofs superblock', 'blocks of 2^9 to 2^16 bytes', found);
  }
  const blockBytes = 2 ** blockShift;
  const layout = {
    blockBytes,
    metaOffset: view.getUint32(40, true) * blockBytes,
    hasMapHeaders: (features & FEATURES_MAP_HEADER) !== 0,
  };
  return new Erofs(disk, layout, view.getUint16(14, true));
}

class Erofs implements FileSystem {
  readonly type = 'erofs';
  readonly rootId: number;
  readonly blockBytes: number;
  readonly #disk: Disk;
  readonly #layout: ErofsLayout;

  constructor(disk: Disk, layout: ErofsLayout, rootId: number) {
    this.#disk = disk;
    this.#layout = layout;
    this.rootId = rootId;
    this.blockBytes = layout.blockBytes;
  }

  on(disk: Disk): FileSystem {
    return new Erofs(disk, this.#layout, this.rootId);
  }

  async node(id: number): Promise<FsNode> {
    const structure = `erofs inode ${id}`;
    const offset = await this.nodeOffset(id);
    let inode = await readMetadata(this.#disk, offset, COMPACT_INODE_BYTES, structure);
    if ((inode.readUInt16LE(0) & 1) === 1) {
      inode = await readMetadata(this.#disk, offset, EXTENDED_INODE_BYTES, structure);
    }
    return new ErofsNode({ id, disk: this.#disk, layout: this.#layout, inode, offset });
  }

  async nodeOffset(id: number): Promise<number> {
    return this.#layout.metaOffset + id * INODE_SLOT_BYTES;
  }

  /** Inodes lie among the data, so the superblock is all that has a place of its own. */
  async *metadata(): AsyncGenerator<MetadataRange, void, undefined> {
    yield { kind: 'superblock', offset: 0, length: SUPERBLOCK_END };
  }
}
