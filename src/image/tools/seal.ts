import type { UpperPaths } from '../lsmt/create-upper.ts';
import { openWritableUpper, type SealedUpper } from '../lsmt/writable-upper.ts';

/**
 * Seals a writable layer in place: its data file becomes a read-only layer, `overlaybd-commit
 * --seal`. Errors: those of openWritableUpper, and ERR_LSMT_ENTRIES.
 */
export async function sealLayer(paths: UpperPaths): Promise<SealedUpper> {
  const upper = await openWritableUpper(paths);
  return await upper.seal();
}
