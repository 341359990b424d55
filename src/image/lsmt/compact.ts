import { SECTOR_BYTES } from '../../base/limits.ts';
import type { LayerBytes } from '../layer-bytes.ts';
import type { Segments } from './overlay.ts';
import type { LsmtExtent } from './writer.ts';

/**
 * What `overlayLayers` left of some layers, with its data: `writeCommittedLayer` makes a merged
 * layer of it, or the commit of a single one. `sources[i]` is the LSMT file of layer `i`, bottom
 * first. Tags number the sources from the top, as the original's merge does.
 */
export async function* extentsOf(
  segments: Segments,
  sources: readonly LayerBytes[],
): AsyncGenerator<LsmtExtent> {
  for (let at = 0; at < segments.count; at += 1) {
    const lba = segments.start[at];
    const sectors = segments.sectors[at];
    const layer = segments.layer[at];
    const tag = sources.length - 1 - layer;
    if (segments.zeroed[at] === 1) {
      yield { lba, sectors, tag, zeroed: true };
    } else {
      const offset = segments.mapped[at] * SECTOR_BYTES;
      yield { lba, sectors, tag, data: await sources[layer].read(offset, sectors * SECTOR_BYTES) };
    }
  }
}
