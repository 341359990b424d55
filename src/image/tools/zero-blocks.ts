import { SECTOR_BYTES } from '../../base/limits.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';

/** What is looked at: a file system's usual block. */
const BLOCK_SECTORS = 8;
const ZERO_BLOCK = Buffer.alloc(BLOCK_SECTORS * SECTOR_BYTES);

/**
 * Takes 4 KiB blocks of zeros out of the data: they become zeroed entries, which still hide what is
 * below, or, as 'holes', nothing at all, for a layer that has nothing below it.
 */
export async function* withoutZeroBlocks(
  extents: AsyncIterable<LsmtExtent>,
  become: 'zeroed' | 'holes',
): AsyncGenerator<LsmtExtent> {
  for await (const extent of extents) {
    if (extent.zeroed) yield extent;
    else yield* split(extent, extent.data, become);
  }
}

function* split(
  extent: LsmtExtent,
  data: Uint8Array,
  become: 'zeroed' | 'holes',
): Generator<LsmtExtent> {
  const { lba, sectors, tag = 0 } = extent;
  const part = (from: number, to: number, isZero: boolean): LsmtExtent[] => {
    if (from === to) return [];
    const place = { lba: lba + from, sectors: to - from, tag };
    if (isZero) return become === 'zeroed' ? [{ ...place, zeroed: true }] : [];
    return [{ ...place, data: data.subarray(from * SECTOR_BYTES, to * SECTOR_BYTES) }];
  };
  let start = 0;
  let isZero = false;
  let at = 0;
  while (at < sectors) {
    // Blocks are the disk's, not the extent's.
    const end = Math.min(sectors, at + BLOCK_SECTORS - ((lba + at) % BLOCK_SECTORS));
    const isWhole = end - at === BLOCK_SECTORS;
    const isZeroNow =
      isWhole && ZERO_BLOCK.equals(data.subarray(at * SECTOR_BYTES, end * SECTOR_BYTES));
    if (isZeroNow !== isZero) {
      yield* part(start, at, isZero);
      start = at;
      isZero = isZeroNow;
    }
    at = end;
  }
  yield* part(start, sectors, isZero);
}
