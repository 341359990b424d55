import type { Blob } from '../blob/blob.ts';
import type { TracePlan } from '../trace/trace.ts';

/**
 * Of a plan, the bytes that a device's reads have touched so far, whichever lane brought them. `blobs`
 * are those of the plan's layers, in their order; what of the plan lies beyond them counts nothing.
 */
export function touchedOfPlan(
  { count, blob, offset, length }: TracePlan,
  blobs: readonly Pick<Blob, 'sizeBytes' | 'touchedIn'>[],
): number {
  let bytes = 0;
  for (let i = 0; i < count; i += 1) {
    const layer = blobs.at(blob[i]);
    if (layer === undefined || offset[i] + length[i] > layer.sizeBytes) continue;
    bytes += layer.touchedIn(offset[i], length[i]);
  }
  return bytes;
}
