import { registryLimits } from '../base/limits.ts';
import { isObject, parseJsonObject } from './collect.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { header, parseRetryAfter } from './headers.ts';
import type { ResponseHead } from './transport.ts';

/**
 * The error an unwanted status means. Of the answer's body only the registry's error codes are
 * quoted (distribution specification, "Error Codes"): free text may repeat what was sent.
 */
export function statusError(
  url: URL,
  head: ResponseHead,
  body: Uint8Array,
  nowWallMs: number,
): RegistryError {
  const { status } = head;
  const codes = errorCodes(body);
  const found = `${publicUrl(url)}: expected success, found status ${status}${codes}`;
  if (status === 401 || status === 403) {
    return new RegistryError(
      'ERR_REGISTRY_AUTH',
      `${found}: not allowed. Check the credentials configured for this repository.`,
      { status, errno: 'EACCES' },
    );
  }
  if (status === 404 || status === 410) {
    return new RegistryError(
      'ERR_REGISTRY_NOT_FOUND',
      `${found}: not there. Check the repository, tag or digest.`,
      { status, errno: 'ENOENT' },
    );
  }
  if (status === 429 || status === 503) {
    const retryAfter = header(head.headers, 'retry-after');
    const retryAfterMs = parseRetryAfter(retryAfter, nowWallMs, registryLimits.retryAfterMsMax);
    return new RegistryError(
      'ERR_THROTTLED',
      `${found}: asked to wait ${retryAfterMs} ms. Lower the concurrency if this persists.`,
      { status, retryable: true, retryAfterMs },
    );
  }
  const retryable = status >= 500 || status === 408;
  const hint = retryable ? 'the server failed; trying again may help' : 'the request was refused';
  return new RegistryError('ERR_REGISTRY_STATUS', `${found}: ${hint}.`, { status, retryable });
}

function errorCodes(body: Uint8Array): string {
  const errors = parseJsonObject(body)?.errors;
  if (!Array.isArray(errors)) return '';
  const codes = errors
    .slice(0, 4)
    .map((error: unknown) => (isObject(error) ? error.code : null))
    .filter((code) => typeof code === 'string' && /^[A-Z_]{1,40}$/.test(code));
  return codes.length === 0 ? '' : ` (${codes.join(', ')})`;
}
