import { crc32cRaw } from '../../base/crc32c.ts';
import { JUMP_TABLE_GROUP_SHIFT, type ZFileMap } from '../stack-map.ts';
import { JUMP_ENTRY_BYTES } from './format.ts';

const GROUP_MASK = (1 << JUMP_TABLE_GROUP_SHIFT) - 1;
/** Entries are taken from the blob, where they have any alignment, in pieces of this many bytes. */
const CHUNK_BYTES = 256 * 1024;

/** What a stored jump table amounts to. */
export interface JumpTable {
  groupBase: ZFileMap['groupBase'];
  withinGroup: ZFileMap['withinGroup'];
  /** Blob offset behind the last block. */
  end: number;
  /** CRC-32C without inversions of the stored table. */
  crc: number;
  /** The first entry outside the bounds, or null. */
  firstBad: { block: number; storedBytes: number } | null;
}

/** The smallest and the largest stored length of a block. */
export interface EntryBounds {
  min: number;
  max: number;
}

/**
 * Turns stored lengths into offsets. `stored` holds one little-endian u32 a block; the first block
 * begins at blob offset `start`.
 */
export function loadJumpTable(stored: Uint8Array, start: number, bounds: EntryBounds): JumpTable {
  const blockCount = stored.length / JUMP_ENTRY_BYTES;
  const groups = (blockCount >>> JUMP_TABLE_GROUP_SHIFT) + 1;
  const groupBase = new Float64Array(new SharedArrayBuffer(groups * 8));
  const withinGroup = new Uint32Array(new SharedArrayBuffer((blockCount + 1) * 4));
  const chunk = new Uint8Array(CHUNK_BYTES);
  const entries = new Uint32Array(chunk.buffer);
  let crc = 0;
  let base = start;
  let within = 0;
  let block = 0;
  let firstBad: JumpTable['firstBad'] = null;
  for (let at = 0; at < stored.length; at += CHUNK_BYTES) {
    const piece = stored.subarray(at, at + CHUNK_BYTES);
    chunk.set(piece);
    crc = crc32cRaw(crc, chunk.subarray(0, piece.length));
    const count = piece.length / JUMP_ENTRY_BYTES;
    for (let entry = 0; entry < count; entry += 1) {
      if ((block & GROUP_MASK) === 0) {
        base += within;
        within = 0;
        groupBase[block >>> JUMP_TABLE_GROUP_SHIFT] = base;
      }
      withinGroup[block] = within;
      const storedBytes = entries[entry];
      if (storedBytes < bounds.min || storedBytes > bounds.max) {
        firstBad ??= { block, storedBytes };
      }
      within += storedBytes;
      block += 1;
    }
  }
  closeTable(groupBase, withinGroup, blockCount, base, within);
  return { groupBase, withinGroup, end: base + within, crc, firstBad };
}

/** The entry behind the last block, which opens a group when the groups before it are full. */
function closeTable(
  groupBase: Float64Array,
  withinGroup: Uint32Array,
  blockCount: number,
  base: number,
  within: number,
): void {
  if ((blockCount & GROUP_MASK) === 0) {
    groupBase[blockCount >>> JUMP_TABLE_GROUP_SHIFT] = base + within;
    withinGroup[blockCount] = 0;
  } else {
    withinGroup[blockCount] = within;
  }
}
