/**
 * Every error a user can cause. `code` is stable and meant for programs; the message is meant for
 * people and names the file or URL, what was expected, what was found and what to do next. Secrets
 * never enter either. Broken invariants of our own use `node:assert` instead.
 */
export class ReplaybdError extends Error {
  readonly code: ErrorCode;
  /** The errno a front end reports to its guest, e.g. 'EIO'. */
  readonly errno: ErrnoName;

  constructor(code: ErrorCode, message: string, options: ReplaybdErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'ReplaybdError';
    this.code = code;
    this.errno = options.errno ?? 'EIO';
  }
}

export type ErrnoName =
  'EIO' | 'EROFS' | 'EINVAL' | 'ENOSPC' | 'ETIMEDOUT' | 'EACCES' | 'ENOENT' | 'EBUSY';

export interface ReplaybdErrorOptions {
  cause?: unknown;
  errno?: ErrnoName;
}

/** Codes start with ERR_, then the room or structure, then what is wrong with it. */
export type ErrorCode = `ERR_${string}`;

/** The structured part of a format error: which bytes of which file disagree with the format. */
export interface FormatMismatch {
  /** File path or URL. */
  name: string;
  /** e.g. 'ZFile trailer'. */
  structure: string;
  expected: string;
  found: string;
}

/** An error for bytes that do not follow their format. */
export function formatError(code: ErrorCode, mismatch: FormatMismatch, hint = ''): ReplaybdError {
  const { name, structure, expected, found } = mismatch;
  const advice = hint === '' ? '' : ` ${hint}`;
  return new ReplaybdError(
    code,
    `${name}: ${structure}: expected ${expected}, found ${found}.${advice}`,
  );
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a Node or replaybd error, '' when it has none. */
export function codeOf(error: unknown): string {
  if (typeof error !== 'object' || error === null || !('code' in error)) return '';
  return typeof error.code === 'string' ? error.code : '';
}
