import { codeOf, messageOf, ReplaybdError } from '../../base/errors.ts';
import { fetchLimits } from '../../base/limits.ts';

/** Exponential, with full jitter; `random` gives [0, 1). */
export function backoffMs(attempt: number, random: () => number): number {
  const ceiling = Math.min(fetchLimits.backoffMsFirst * 2 ** attempt, fetchLimits.backoffMsMax);
  return random() * ceiling;
}

/** How long the server asked to be left alone; 0 when it did not. */
export function throttledMs(error: unknown): number {
  if (codeOf(error) !== 'ERR_THROTTLED') return 0;
  const asked = numberOf(error, 'retryAfterMs');
  return Math.min(Math.max(asked, fetchLimits.backoffMsFirst), fetchLimits.retryAfterMsMax);
}

/** Whether the same request cannot succeed later: a source says `retryable: false` then. */
export function isFinal(error: unknown): boolean {
  if (throttledMs(error) > 0 || typeof error !== 'object' || error === null) return false;
  return 'retryable' in error && error.retryable === false;
}

/** The origin wants one range a request: asking again at once helps. */
export function isRefusal(error: unknown): boolean {
  return codeOf(error) === 'ERR_RANGES_REFUSED';
}

/** A source's failure as a guest's read reports it. */
export function asReadError(error: unknown, name: string): ReplaybdError {
  if (error instanceof ReplaybdError) return error;
  const message = `${name}: ${messageOf(error)}`;
  return new ReplaybdError('ERR_FETCH', message, { cause: error });
}

function numberOf(error: unknown, key: string): number {
  if (typeof error !== 'object' || error === null) return 0;
  const value: unknown = Reflect.get(error, key);
  return typeof value === 'number' && Number.isFinite(value) ? value : 0;
}
