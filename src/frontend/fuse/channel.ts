import { readSync, writeSync } from 'node:fs';
import { codeOf } from '../../base/errors.ts';
import { FuseReply } from './protocol.ts';

/** The connection was unmounted or aborted. */
const ENDED_CODES = ['ENODEV', 'ECONNABORTED'];

/** Nothing is wrong: a signal, or a request that was taken back while we were reading it. */
const RETRY_CODES = ['EINTR', 'EAGAIN', 'ENOENT'];

/** Waits for a request and returns its length; 0 when the connection has ended. */
export function receive(fd: number, into: Buffer): number {
  for (;;) {
    try {
      return readSync(fd, into, 0, into.length, null);
    } catch (error) {
      const code = codeOf(error);
      if (ENDED_CODES.includes(code)) return 0;
      if (!RETRY_CODES.includes(code)) throw error;
    }
  }
}

/**
 * Sends the first `length` bytes of a finished reply. A request that nobody waits for any more, or
 * a connection that has ended, is no error: there is nobody left to tell.
 */
export function send(fd: number, reply: FuseReply, length: number): void {
  try {
    writeSync(fd, reply.bytes, FuseReply.HEADER_AT, length);
  } catch (error) {
    const code = codeOf(error);
    if (!ENDED_CODES.includes(code) && code !== 'ENOENT') throw error;
  }
}
