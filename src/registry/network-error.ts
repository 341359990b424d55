import { codeOf } from '../base/errors.ts';
import { publicUrl, RegistryError } from './errors.ts';

const TIMEOUT_CODES = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_BODY_TIMEOUT',
  'ETIMEDOUT',
]);

/** Codes by which Node and OpenSSL report that the peer could not be authenticated. */
const TLS_CODE =
  /^(ERR_TLS_|ERR_SSL_|CERT_|CRL_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|EPROTO)/;

/**
 * What an HTTP client's failure means: ERR_REGISTRY_TLS (final), ERR_BODY_LENGTH or
 * ERR_REGISTRY_NETWORK (both worth a retry).
 */
export function networkError(url: URL, cause: unknown): RegistryError {
  if (cause instanceof RegistryError) return cause;
  const where = publicUrl(url);
  const code = firstCode(cause);
  if (TLS_CODE.test(code)) {
    return new RegistryError(
      'ERR_REGISTRY_TLS',
      `${where}: expected a certificate signed by a trusted authority, found ${code}. ` +
        'Name the authority with --ca FILE, or use http:// if the registry has no TLS.',
      { cause, errno: 'EACCES' },
    );
  }
  if (code === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') {
    return new RegistryError(
      'ERR_BODY_LENGTH',
      `${where}: expected a body as long as its Content-Length, found another length.`,
      { cause, retryable: true },
    );
  }
  const timedOut = TIMEOUT_CODES.has(code);
  return new RegistryError(
    'ERR_REGISTRY_NETWORK',
    `${where}: expected an answer, found ${timedOut ? 'a timeout' : 'a broken connection'}` +
      `${code === '' ? '' : ` (${code})`}. Check the address and the network.`,
    { cause, retryable: true, errno: timedOut ? 'ETIMEDOUT' : 'EIO' },
  );
}

/** Connection errors may arrive as an AggregateError, one cause an address. */
function firstCode(cause: unknown): string {
  if (cause instanceof AggregateError) {
    return codeOf(cause) || cause.errors.map(codeOf).find((code) => code !== '') || '';
  }
  const inner = cause instanceof Error ? codeOf(cause.cause) : '';
  return inner !== '' ? inner : codeOf(cause);
}
