import { SECTOR_BYTES } from '../base/limits.ts';
import type { ExportSource } from './export.ts';
import type { LayerBytes } from './layer-bytes.ts';
import { findSegment } from './lsmt/merged-index.ts';
import { ZERO_LAYER, type MergedIndexMap } from './stack-map.ts';

/**
 * A disk that is read piece by piece, without a device. `layers[i]` is the LSMT file that segments
 * of layer `i` point into.
 */
export function exportSource(
  layers: readonly LayerBytes[],
  index: MergedIndexMap,
  virtualSizeBytes: number,
): ExportSource {
  const { start, sectors, mapped, layer, segmentCount } = index;
  return {
    virtualSizeBytes,
    index,
    read: async (offset, into) => {
      into.fill(0);
      const lba = offset / SECTOR_BYTES;
      const lbaEnd = lba + into.length / SECTOR_BYTES;
      const copies: Promise<void>[] = [];
      for (let at = findSegment(index, lba); at < segmentCount && start[at] < lbaEnd; at += 1) {
        if (layer[at] === ZERO_LAYER) continue;
        const from = Math.max(lba, start[at]);
        const length = (Math.min(lbaEnd, start[at] + sectors[at]) - from) * SECTOR_BYTES;
        const source = (mapped[at] + from - start[at]) * SECTOR_BYTES;
        const target = (from - lba) * SECTOR_BYTES;
        copies.push(copy(layers[layer[at]], source, into.subarray(target, target + length)));
      }
      await Promise.all(copies);
    },
  };
}

async function copy(bytes: LayerBytes, offset: number, into: Uint8Array): Promise<void> {
  into.set(await bytes.read(offset, into.length));
}
