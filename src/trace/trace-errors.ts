import { ReplaybdError } from '../base/errors.ts';

/** An error for a field of a trace that breaks its rules; the decoder adds the file's name. */
export function damaged(field: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError('ERR_TRACE_FORMAT', `${field}: expected ${expected}, found ${found}`);
}

/** An error for a trace that would be, or is, larger than the format allows. */
export function tooLarge(what: string, max: number, found: number): ReplaybdError {
  return new ReplaybdError('ERR_TRACE_LIMIT', `${what}: at most ${max} allowed, found ${found}`);
}
