import { createHash } from 'node:crypto';
import { ReplaybdError } from '../../base/errors.ts';

const DIGEST_PATTERN = /^sha256:[0-9a-f]{64}$/;

/** `sha256:` and 64 digits. */
export function isChecksum(text: string): boolean {
  return DIGEST_PATTERN.test(text);
}

/** Passes chunks on, and ends in ERR_TAR_CHECKSUM when all of them were not what `expected` says. */
export async function* checked(
  chunks: AsyncIterable<Uint8Array>,
  expected: string,
): AsyncGenerator<Uint8Array, void> {
  const hash = createHash('sha256');
  for await (const chunk of chunks) {
    hash.update(chunk);
    yield chunk;
  }
  const found = `sha256:${hash.digest('hex')}`;
  if (found === expected) return;
  throw new ReplaybdError(
    'ERR_TAR_CHECKSUM',
    `tar: expected ${expected} of its uncompressed bytes, found ${found}. Nothing of it was ` +
      'applied. Get the layer again.',
  );
}
