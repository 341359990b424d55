import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';

const FULL_CODES = ['ENOSPC', 'EDQUOT', 'EFBIG'];

/** The error for a failed write to a file of a writable layer: ERR_UPPER_FULL or ERR_UPPER_WRITE. */
export function upperWriteError(name: string, what: string, cause: unknown): ReplaybdError {
  if (cause instanceof ReplaybdError) return cause;
  const isFull = FULL_CODES.includes(codeOf(cause));
  return new ReplaybdError(
    isFull ? 'ERR_UPPER_FULL' : 'ERR_UPPER_WRITE',
    `${name}: ${what}: ${messageOf(cause)}`,
    { cause, errno: isFull ? 'ENOSPC' : 'EIO' },
  );
}
