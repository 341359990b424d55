import { createHash } from 'node:crypto';
import { ReplaybdError } from '../base/errors.ts';

const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Whether the text is `sha256:` and 64 lower-case hexadecimal digits. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** ERR_DIGEST when `text`, found in `name`, is not a sha256 digest. */
export function assertDigest(text: string, name: string): void {
  if (isDigest(text)) return;
  throw new ReplaybdError(
    'ERR_DIGEST',
    `${name}: expected sha256:<64 hexadecimal digits>, found ${JSON.stringify(text.slice(0, 100))}.`,
    { errno: 'EINVAL' },
  );
}

/** The sha256 digest of some bytes. */
export function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

/** The 64 hexadecimal digits of a digest. */
export function digestHex(digest: string): string {
  return digest.slice('sha256:'.length);
}
