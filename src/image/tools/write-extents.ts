import { SECTOR_BYTES } from '../../base/limits.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';
import type { WritableUpper } from '../lsmt/writable-upper.ts';

/** Writes extents to a writable layer, without a flush. Errors: those of WritableUpper and theirs. */
export async function writeExtents(
  upper: WritableUpper,
  extents: AsyncIterable<LsmtExtent>,
): Promise<void> {
  for await (const extent of extents) {
    const offset = extent.lba * SECTOR_BYTES;
    if (extent.zeroed) await upper.discard(offset, extent.sectors * SECTOR_BYTES);
    else await upper.write(offset, extent.data);
  }
}
