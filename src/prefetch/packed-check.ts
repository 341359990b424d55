import { createHash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Blob } from '../blob/blob.ts';
import { hotRanges } from '../trace/hot-layout.ts';
import type { Trace } from '../trace/trace.ts';

/** Bytes that are hashed before others have their turn: about a millisecond's worth. */
const TURN_BYTES = 512 * 1024;

/**
 * Hashes what a cache holds of a packed plan, as the hot blob has it: 'same' as the trace says, 'other', or
 * 'unknown' where not all of it is present, or when it is over: blobs must not be closed before. `blobs`: by
 * the trace's layer number; null for one that is not there.
 */
export async function checkPacked(
  { plan, packed }: Pick<Trace, 'plan' | 'packed'>,
  blobs: readonly (Blob | null)[],
  isOver: () => boolean,
): Promise<'same' | 'other' | 'unknown'> {
  if (packed === undefined) return 'unknown';
  const hash = createHash('sha256');
  let turnBytes = 0;
  for (const { layer, offset, length } of hotRanges(plan, packed.layers)) {
    const blob = blobs[layer];
    for (let done = 0; done < length; done += TURN_BYTES) {
      const part = Math.min(TURN_BYTES, length - done);
      const at = offset + done;
      if (isOver() || blob === null || !blob.has(at, part)) return 'unknown';
      hash.update(blob.bytes.subarray(at, at + part));
      // Present before and after: what was hashed was whole.
      if (!blob.has(at, part)) return 'unknown';
      turnBytes += part;
      if (turnBytes < TURN_BYTES) continue;
      turnBytes = 0;
      await nextTurn();
    }
  }
  return `sha256:${hash.digest('hex')}` === packed.digest ? 'same' : 'other';
}
