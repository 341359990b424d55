import { fsReadLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { blocksOf, ExtentList, readContent, readMetadata } from './content.ts';
import type { Disk } from './disk.ts';
import { addCompressedClusters } from './erofs-clusters.ts';
import { parseErofsDirectory } from './erofs-directory.ts';
import type { ErofsLayout } from './erofs.ts';
import { kindOfMode } from './ext4-node.ts';
import {
  damagedFs,
  fsTooLarge,
  unsupportedFs,
  type DirectoryEntry,
  type FileExtent,
  type FsNode,
  type NodeKind,
} from './file-system.ts';

/** How an inode keeps its content: bits 1 to 3 of its format. */
const DATA_LAYOUT = { plain: 0, compressedFull: 1, inline: 2, compressedCompact: 3, chunks: 4 };
const CHUNK_BITS_MASK = 0x1f;
const CHUNK_INDEXES = 0x20;
const NO_BLOCK = 0xffffffff;
/** Chunk indexes are read so many bytes at a time. */
const TABLE_READ_BYTES = 64 * 1024;

/** An inode as it was read from byte `offset` of the disk. */
export interface ErofsInode {
  readonly id: number;
  readonly disk: Disk;
  readonly layout: ErofsLayout;
  readonly inode: Buffer;
  readonly offset: number;
}

export class ErofsNode implements FsNode {
  readonly id: number;
  readonly kind: NodeKind;
  readonly sizeBytes: number;
  readonly inode: ByteRange;
  readonly isCompressed: boolean;
  readonly #at: ErofsInode;
  readonly #dataLayout: number;

  constructor(at: ErofsInode) {
    const { inode, disk } = at;
    const format = inode.readUInt16LE(0);
    this.#at = at;
    this.id = at.id;
    this.kind = kindOfMode(inode.readUInt16LE(4));
    this.#dataLayout = (format >> 1) & 7;
    this.inode = { offset: at.offset, length: this.#inodeEnd - at.offset };
    const { compressedFull, compressedCompact } = DATA_LAYOUT;
    this.isCompressed = [compressedFull, compressedCompact].includes(this.#dataLayout);
    const isExtended = (format & 1) === 1;
    const size = isExtended ? inode.readBigUInt64LE(8) : BigInt(inode.readUInt32LE(8));
    if (size > BigInt(Number.MAX_SAFE_INTEGER) / 2n) {
      throw damagedFs(disk, this.#structure, 'a size below 2^52', String(size));
    }
    this.sizeBytes = Number(size);
  }

  async extents(): Promise<FileExtent[]> {
    const { disk } = this.#at;
    if (this.kind === 'other' || this.sizeBytes === 0) return [];
    const list = new ExtentList(disk, this.#structure);
    switch (this.#dataLayout) {
      case DATA_LAYOUT.plain:
        list.add(0, this.#blockOffset(this.#at.inode.readUInt32LE(16)), this.sizeBytes);
        break;
      case DATA_LAYOUT.inline:
        this.#addInline(list);
        break;
      case DATA_LAYOUT.chunks:
        await this.#addChunks(list);
        break;
      case DATA_LAYOUT.compressedFull:
      case DATA_LAYOUT.compressedCompact:
        await addCompressedClusters({
          list,
          disk,
          layout: this.#at.layout,
          sizeBytes: this.sizeBytes,
          headerOffset: Math.ceil(this.#inodeEnd / 8) * 8,
          isCompact: this.#dataLayout === DATA_LAYOUT.compressedCompact,
          structure: this.#structure,
        });
        break;
      default:
        throw unsupportedFs(disk, this.#structure, `data layout ${this.#dataLayout}`);
    }
    return list.extents;
  }

  async *entries(): AsyncGenerator<DirectoryEntry, void, undefined> {
    const { disk, layout } = this.#at;
    if (this.kind !== 'directory') throw damagedFs(disk, this.#structure, 'a directory', this.kind);
    const extents = await this.#readableExtents();
    for (const { fileOffset } of extents) {
      if (fileOffset % layout.blockBytes === 0) continue;
      throw damagedFs(disk, this.#structure, 'whole directory blocks', fileOffset);
    }
    for await (const block of blocksOf(disk, extents, layout.blockBytes, this.#structure)) {
      yield* parseErofsDirectory(block, disk, this.#structure);
    }
  }

  async readLink(): Promise<Buffer> {
    const { disk } = this.#at;
    if (this.kind !== 'symlink') throw damagedFs(disk, this.#structure, 'a symlink', this.kind);
    return readContent(disk, await this.#readableExtents(), this.sizeBytes, this.#structure);
  }

  /** Extents of what is read here: nothing is decompressed. */
  async #readableExtents(): Promise<FileExtent[]> {
    if (this.isCompressed) {
      throw unsupportedFs(this.#at.disk, this.#structure, `a compressed ${this.kind}`);
    }
    return this.extents();
  }

  /** Whole blocks are elsewhere, and the last one follows the inode. */
  #addInline(list: ExtentList): void {
    const { blockBytes } = this.#at.layout;
    const blocks = Math.ceil(this.sizeBytes / blockBytes);
    const tailAt = (blocks - 1) * blockBytes;
    if (tailAt > 0) list.add(0, this.#blockOffset(this.#at.inode.readUInt32LE(16)), tailAt);
    list.add(tailAt, this.#inodeEnd, this.sizeBytes - tailAt);
  }

  async #addChunks(list: ExtentList): Promise<void> {
    const { disk, inode, layout } = this.#at;
    const format = inode.readUInt16LE(16);
    const hasIndexes = (format & CHUNK_INDEXES) !== 0;
    const chunkBytes = layout.blockBytes * 2 ** (format & CHUNK_BITS_MASK);
    const chunks = Math.ceil(this.sizeBytes / chunkBytes);
    if (chunks > fsReadLimits.extentsMax) {
      throw fsTooLarge(disk, `${this.#structure}: chunks`, fsReadLimits.extentsMax);
    }
    const entryBytes = hasIndexes ? 8 : 4;
    const tableOffset = Math.ceil(this.#inodeEnd / entryBytes) * entryBytes;
    for (let chunk = 0; chunk < chunks;) {
      const count = Math.min(chunks - chunk, TABLE_READ_BYTES / entryBytes);
      const offset = tableOffset + chunk * entryBytes;
      const table = await readMetadata(disk, offset, count * entryBytes, this.#structure);
      for (let i = 0; i < count; i += 1, chunk += 1) {
        const block = table.readUInt32LE(i * entryBytes + (hasIndexes ? 4 : 0));
        if (block === NO_BLOCK) continue;
        if (hasIndexes && table.readUInt16LE(i * entryBytes + 2) !== 0) {
          throw unsupportedFs(disk, this.#structure, 'data on another device');
        }
        const fileOffset = chunk * chunkBytes;
        const length = Math.min(chunkBytes, this.sizeBytes - fileOffset);
        list.add(fileOffset, this.#blockOffset(block), length);
      }
    }
  }

  #blockOffset(block: number): number {
    return block * this.#at.layout.blockBytes;
  }

  /** Where the inode ends, extended attributes included. */
  get #inodeEnd(): number {
    const { inode, offset } = this.#at;
    const count = inode.readUInt16LE(2);
    const attributeBytes = count === 0 ? 0 : 12 + (count - 1) * 4;
    return offset + inode.length + attributeBytes;
  }

  get #structure(): string {
    return `erofs inode ${this.id}`;
  }
}
