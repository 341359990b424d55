import { open } from 'node:fs/promises';
import type { UpperPaths } from './create-upper.ts';
import { LSMT_BLOCK_BYTES, parseLsmtBlock, serializeLsmtBlock } from './format.ts';
import type { UpperKind } from './upper-map.ts';

/**
 * Writes a disk's size into the headers of a writable layer's files, durably, as the original's
 * update_vsize does. A sparse data file gets the length that goes with it.
 */
export async function writeVirtualSize(
  paths: UpperPaths,
  kind: UpperKind,
  virtualSizeBytes: number,
): Promise<void> {
  const names = kind === 'append' ? [paths.data, paths.index] : [paths.data];
  for (const name of names) {
    const file = await open(name, 'r+');
    try {
      const bytes = new Uint8Array(LSMT_BLOCK_BYTES);
      const { bytesRead } = await file.read(bytes, 0, LSMT_BLOCK_BYTES, 0);
      const block = parseLsmtBlock(bytes.subarray(0, bytesRead), name, 'LSMT header');
      await file.write(serializeLsmtBlock({ ...block, virtualSizeBytes }), 0, LSMT_BLOCK_BYTES, 0);
      if (kind === 'sparse') await file.truncate(LSMT_BLOCK_BYTES + virtualSizeBytes);
      await file.sync();
    } finally {
      await file.close();
    }
  }
}
