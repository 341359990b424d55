import { SECTOR_BYTES } from '../base/limits.ts';
import { exportSource } from '../image/export-source.ts';
import type { Disk } from '../image/fs/disk.ts';
import type { Stack } from '../image/stack.ts';

/**
 * An image's disk without a device, for whoever prepares reads rather than waits for them: what is
 * missing is fetched in the prefetch lane.
 */
export function stackDisk(stack: Stack, name: string): Disk {
  const { index, virtualSizeBytes } = stack.map;
  const layers = stack.layers.map(({ container }) => container.bytes);
  const source = exportSource(layers, index, virtualSizeBytes);
  return {
    name,
    sizeBytes: virtualSizeBytes,
    read: async (offset, length) => {
      const first = offset - (offset % SECTOR_BYTES);
      const sectors = Math.ceil((offset + length - first) / SECTOR_BYTES);
      const pieces = stack.locate(first / SECTOR_BYTES, sectors);
      await Promise.all(
        pieces.map((piece) => {
          const range = stack.blobRangeOf(piece);
          const { blob } = stack.layers[piece.layer];
          return blob.ensure(range.offset, range.length, { lane: 'prefetch' });
        }),
      );
      const bytes = new Uint8Array(sectors * SECTOR_BYTES);
      await source.read(first, bytes);
      return bytes.subarray(offset - first, offset - first + length);
    },
  };
}
