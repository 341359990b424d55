import { fsReadLimits } from '../../base/limits.ts';
import { readMetadata, type ExtentList } from './content.ts';
import type { Disk } from './disk.ts';
import { damagedFs, fsTooLarge } from './file-system.ts';

/** What a file's map is read into. */
export interface MapTarget {
  readonly list: ExtentList;
  readonly disk: Disk;
  readonly blockBytes: number;
  /** What lies behind this byte of the file is left out. */
  readonly endBytes: number;
  readonly structure: string;
}

const EXTENT_MAGIC = 0xf30a;
const EXTENT_BYTES = 12;
const EXTENT_DEPTH_MAX = 5;
/** Longer extents are allocated, but were never written: they read as zeros. */
const WRITTEN_BLOCKS_MAX = 32_768;

/** Adds what an extent tree maps; `root` is the node in the inode. */
export async function addExtentTree(target: MapTarget, root: Buffer): Promise<void> {
  const { disk, blockBytes, structure } = target;
  const budget = new BlockBudget(target);
  const depth = root.readUInt16LE(6);
  if (depth > EXTENT_DEPTH_MAX) {
    throw damagedFs(disk, structure, `an extent tree of depth ${EXTENT_DEPTH_MAX}`, depth);
  }
  // A node's children are one level lower than itself, so no tree is read in circles.
  const visit = async (node: Buffer, level: number): Promise<void> => {
    const count = node.readUInt16LE(2);
    const room = Math.floor(node.length / EXTENT_BYTES) - 1;
    if (node.readUInt16LE(0) !== EXTENT_MAGIC || node.readUInt16LE(6) !== level || count > room) {
      const found = `magic 0x${node.readUInt16LE(0).toString(16)}, ${count} entries`;
      throw damagedFs(disk, structure, `an extent node of level ${level}`, found);
    }
    for (let i = 1; i <= count; i += 1) {
      const entry = node.subarray(i * EXTENT_BYTES, (i + 1) * EXTENT_BYTES);
      if (level === 0) {
        addExtent(target, entry);
        continue;
      }
      budget.take();
      const block = entry.readUInt16LE(8) * 2 ** 32 + entry.readUInt32LE(4);
      await visit(await readMetadata(disk, block * blockBytes, blockBytes, structure), level - 1);
    }
  };
  await visit(root, depth);
}

function addExtent({ list, blockBytes, endBytes }: MapTarget, entry: Buffer): void {
  const blocks = entry.readUInt16LE(4);
  if (blocks > WRITTEN_BLOCKS_MAX) return;
  const fileOffset = entry.readUInt32LE(0) * blockBytes;
  const block = entry.readUInt16LE(6) * 2 ** 32 + entry.readUInt32LE(8);
  list.add(fileOffset, block * blockBytes, Math.min(blocks * blockBytes, endBytes - fileOffset));
}

const DIRECT_BLOCKS = 12;
const INDIRECTIONS = 3;

/** Adds what the block map of ext2 and ext3 has: 12 blocks, then trees of one to three levels. */
export async function addBlockMap(target: MapTarget, map: Buffer): Promise<void> {
  const { list, disk, blockBytes, endBytes, structure } = target;
  const budget = new BlockBudget(target);
  const numbersPerBlock = blockBytes / 4;
  let fileOffset = 0;
  const visit = async (block: number, level: number): Promise<void> => {
    if (block === 0) {
      fileOffset += blockBytes * numbersPerBlock ** level;
      return;
    }
    if (level === 0) {
      list.add(fileOffset, block * blockBytes, Math.min(blockBytes, endBytes - fileOffset));
      fileOffset += blockBytes;
      return;
    }
    budget.take();
    const numbers = await readMetadata(disk, block * blockBytes, blockBytes, structure);
    for (let i = 0; i < numbersPerBlock && fileOffset < endBytes; i += 1) {
      await visit(numbers.readUInt32LE(i * 4), level - 1);
    }
  };
  for (let i = 0; i < DIRECT_BLOCKS + INDIRECTIONS && fileOffset < endBytes; i += 1) {
    await visit(map.readUInt32LE(i * 4), Math.max(0, i - DIRECT_BLOCKS + 1));
  }
}

/** Bounds the blocks that one map may make us read. */
class BlockBudget {
  readonly #target: MapTarget;
  #left: number = fsReadLimits.mapBlocksMax;

  constructor(target: MapTarget) {
    this.#target = target;
  }

  take(): void {
    if (this.#left === 0) {
      const { disk, structure } = this.#target;
      throw fsTooLarge(disk, `${structure}: blocks of its map`, fsReadLimits.mapBlocksMax);
    }
    this.#left -= 1;
  }
}
