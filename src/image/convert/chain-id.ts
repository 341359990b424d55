import { digestHex, digestOf } from '../../registry/digest.ts';

/**
 * The chain id of every layer (OCI image specification, config.md): it names the layer together
 * with all that lie below it.
 */
export function chainIds(diffIds: readonly string[]): string[] {
  const chain: string[] = [];
  for (const diffId of diffIds) {
    const below = chain.at(-1);
    chain.push(below === undefined ? diffId : digestOf(Buffer.from(`${below} ${diffId}`)));
  }
  return chain;
}

/** The LSMT UUID that overlaybd's own convertor gives a layer: the chain id's first 32 digits. */
export function chainUuid(chainId: string): string {
  const digits = digestHex(chainId).toUpperCase();
  const ends = [8, 12, 16, 20, 32];
  return ends.map((end, i) => digits.slice(ends[i - 1] ?? 0, end)).join('-');
}
