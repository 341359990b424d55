import { constants } from 'node:os';
import koffi from 'koffi';
import { ReplaybdError } from '../src/base/errors.ts';

/** The C library, and the one way its failures become errors. Linux only. */
export const libc = koffi.load('libc.so.6');

const strerror = libc.func('const char *strerror(int number)');

/** The error for a libc call that just failed on this thread; reads errno. */
export function errnoError(call: string, subject: string): ReplaybdError & { errnoNumber: number } {
  const errnoNumber = koffi.errno();
  const name = Object.entries(constants.errno).find(([, value]) => value === errnoNumber)?.[0];
  const error = new ReplaybdError(
    `ERR_${name ?? errnoNumber}`,
    `${call} ${subject}: ${String(strerror(errnoNumber))}`,
  );
  return Object.assign(error, { errnoNumber });
}
