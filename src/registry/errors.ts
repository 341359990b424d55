import { ReplaybdError, type ErrnoName, type ErrorCode } from '../base/errors.ts';

export interface RegistryErrorFacts {
  /** HTTP status, when an answer arrived. */
  status?: number;
  /** The same request may succeed later. */
  retryable?: boolean;
  /** What Retry-After asked for. */
  retryAfterMs?: number;
  errno?: ErrnoName;
  cause?: unknown;
}

/** Every failure of talking to a registry, a token server or a redirect target. */
export class RegistryError extends ReplaybdError {
  /** HTTP status; null when no answer arrived. */
  readonly status: number | null;
  readonly retryable: boolean;
  /** How long the server asked to wait, in milliseconds; 0 when it did not say. */
  readonly retryAfterMs: number;

  constructor(code: ErrorCode, message: string, facts: RegistryErrorFacts = {}) {
    super(code, message, {
      ...(facts.errno === undefined ? {} : { errno: facts.errno }),
      ...(facts.cause === undefined ? {} : { cause: facts.cause }),
    });
    this.name = 'RegistryError';
    this.status = facts.status ?? null;
    this.retryable = facts.retryable ?? false;
    this.retryAfterMs = facts.retryAfterMs ?? 0;
  }
}

/** Whether asking again, a little later, may help. Anything that is not a RegistryError: no. */
export function isRetryable(error: unknown): boolean {
  return error instanceof RegistryError && error.retryable;
}

/** A URL fit for messages: no user info, no query (where signatures live), no fragment. */
export function publicUrl(url: URL | string): string {
  const parsed = typeof url === 'string' ? new URL(url) : url;
  return `${parsed.origin}${parsed.pathname}`;
}
