import type { ByteRange } from '../../base/range.ts';
import { blocksOf, ExtentList, readContent } from './content.ts';
import type { Disk } from './disk.ts';
import { parseExt4Directory } from './ext4-directory.ts';
import { inlineRanges } from './ext4-inline.ts';
import { addBlockMap, addExtentTree } from './ext4-map.ts';
import type { Ext4Layout } from './ext4.ts';
import {
  damagedFs,
  type DirectoryEntry,
  type FileExtent,
  type FsNode,
  type NodeKind,
} from './file-system.ts';

const FLAG_EXTENTS = 0x80000;
const FLAG_INLINE_DATA = 0x10000000;
/** Where an inode keeps its map, or the first bytes of its content. */
export const EXT4_MAP_OFFSET = 40;
export const EXT4_MAP_BYTES = 60;
/** An inline directory begins with its parent's inode number, and has no entries `.` and `..`. */
const INLINE_PARENT_BYTES = 4;

/** An inode as it was read from byte `offset` of the disk. */
export interface Ext4Inode {
  readonly id: number;
  readonly disk: Disk;
  readonly layout: Ext4Layout;
  readonly inode: Buffer;
  readonly offset: number;
}

export class Ext4Node implements FsNode {
  readonly id: number;
  readonly kind: NodeKind;
  readonly sizeBytes: number;
  readonly inode: ByteRange;
  readonly isCompressed = false;
  readonly #at: Ext4Inode;
  readonly #flags: number;

  constructor(at: Ext4Inode) {
    this.#at = at;
    this.id = at.id;
    this.inode = { offset: at.offset, length: at.inode.length };
    this.kind = kindOfMode(at.inode.readUInt16LE(0));
    this.#flags = at.inode.readUInt32LE(32);
    // For what is neither file nor directory the high half means something else.
    const hasHigh = this.kind === 'file' || this.kind === 'directory';
    const high = hasHigh ? at.inode.readUInt32LE(108) : 0;
    this.sizeBytes = high * 2 ** 32 + at.inode.readUInt32LE(4);
  }

  async extents(): Promise<FileExtent[]> {
    const { disk, inode, layout } = this.#at;
    if (this.kind === 'other') return [];
    const list = new ExtentList(disk, this.#structure);
    const inline = this.#inlineRanges();
    if (inline !== null) {
      let fileOffset = 0;
      for (const { offset, length } of inline) {
        list.add(fileOffset, offset, Math.min(length, this.sizeBytes - fileOffset));
        fileOffset += length;
      }
      return list.extents;
    }
    const map = inode.subarray(EXT4_MAP_OFFSET, EXT4_MAP_OFFSET + EXT4_MAP_BYTES);
    // Whole sectors, as the disk is read: the last one of a file too.
    const endBytes = Math.ceil(this.sizeBytes / 512) * 512;
    const target = {
      list,
      disk,
      blockBytes: layout.blockBytes,
      endBytes,
      structure: this.#structure,
    };
    if ((this.#flags & FLAG_EXTENTS) !== 0) await addExtentTree(target, map);
    else await addBlockMap(target, map);
    return list.extents;
  }

  async *entries(): AsyncGenerator<DirectoryEntry, void, undefined> {
    const { disk, layout } = this.#at;
    if (this.kind !== 'directory') throw damagedFs(disk, this.#structure, 'a directory', this.kind);
    const inline = this.#inlineRanges();
    if (inline !== null) {
      for (const [part, { offset, length }] of inline.entries()) {
        const skip = part === 0 ? INLINE_PARENT_BYTES : 0;
        const bytes = this.#at.inode.subarray(offset - this.#at.offset).subarray(skip, length);
        yield* parseExt4Directory(bytes, disk, this.#structure, layout);
      }
      return;
    }
    const extents = await this.extents();
    for await (const block of blocksOf(disk, extents, layout.blockBytes, this.#structure)) {
      yield* parseExt4Directory(block, disk, this.#structure, layout);
    }
  }

  async readLink(): Promise<Buffer> {
    const { disk } = this.#at;
    if (this.kind !== 'symlink') throw damagedFs(disk, this.#structure, 'a symlink', this.kind);
    return readContent(disk, await this.extents(), this.sizeBytes, this.#structure);
  }

  /** Where content is that lies in the inode itself; null for content in blocks. */
  #inlineRanges(): ByteRange[] | null {
    const { offset } = this.#at;
    if ((this.#flags & FLAG_INLINE_DATA) !== 0) {
      return inlineRanges(this.#at, this.#structure);
    }
    const isFastLink =
      this.kind === 'symlink' &&
      (this.#flags & FLAG_EXTENTS) === 0 &&
      this.sizeBytes < EXT4_MAP_BYTES;
    if (!isFastLink) return null;
    return [{ offset: offset + EXT4_MAP_OFFSET, length: EXT4_MAP_BYTES }];
  }

  get #structure(): string {
    return `ext4 inode ${this.id}`;
  }
}

/** Of the bits of `st_mode`. */
export function kindOfMode(mode: number): NodeKind {
  const kinds: Record<number, NodeKind> = { 0x8: 'file', 0x4: 'directory', 0xa: 'symlink' };
  return kinds[mode >> 12] ?? 'other';
}
