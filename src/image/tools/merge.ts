import { SECTOR_BYTES } from '../../base/limits.ts';
import type { OpenedInput } from '../input.ts';
import { extentsOf } from '../lsmt/compact.ts';
import { overlayLayers } from '../lsmt/overlay.ts';
import { writeLayerOutput, type LayerOutput, type LayerOutputOptions } from './layer-output.ts';

/**
 * Flattens lowers, and the upper if there is one, to one layer: `overlaybd-merge`. Without an upper
 * the bytes are the original's (merge_files_ro, file.cpp:1823-1847). With one, the original takes
 * the disk's size from the topmost lower and the parent from the upper; here both are as without:
 * the size is the topmost layer's, the parent the bottom's. Errors: those of reading and writing.
 */
export async function mergeInput(
  { stack, source, entries, bytes }: OpenedInput,
  options: LayerOutputOptions,
): Promise<LayerOutput> {
  const { virtualSizeBytes } = source;
  const segments = overlayLayers(entries, Math.floor(virtualSizeBytes / SECTOR_BYTES));
  const { parentUuid } = stack.layers[0].lsmt.facts;
  const layer = { virtualSizeBytes, uuid: null, parentUuid, userTag: '' };
  return await writeLayerOutput(options, layer, extentsOf(segments, bytes));
}
