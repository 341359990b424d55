import { SECTOR_BYTES } from '../base/limits.ts';
import type { ExportSource } from './export.ts';
import type { LayerBytes } from './layer-bytes.ts';
import type { LsmtEntryColumns } from './lsmt/index-entries.ts';
import { findSegment, mergeLayers } from './lsmt/merged-index.ts';
import { ZERO_LAYER } from './stack-map.ts';

/** A layer's index, and the file its entries point into. */
export interface SourceLayer {
  readonly entries: LsmtEntryColumns;
  readonly bytes: LayerBytes;
}

/** The disk that layers, bottom first, make; read piece by piece, without a device. */
export function exportSource(
  layers: readonly SourceLayer[],
  virtualSizeBytes: number,
): ExportSource {
  const index = mergeLayers(
    layers.map((layer) => layer.entries),
    virtualSizeBytes,
  );
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
        copies.push(copy(layers[layer[at]].bytes, source, into.subarray(target, target + length)));
      }
      await Promise.all(copies);
    },
  };
}

async function copy(bytes: LayerBytes, offset: number, into: Uint8Array): Promise<void> {
  into.set(await bytes.read(offset, into.length));
}
