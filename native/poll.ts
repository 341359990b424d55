import { errnoError, libc } from './libc.ts';

const cPoll = libc.func('int poll(void *fds, ulong count, int timeout)');

/** `struct pollfd`: int fd, short events, short revents. */
const POLLFD_BYTES = 8;
const REVENTS_AT = 6;
const POLLERR = 0x8;

/** True when a descriptor is in error (POLLERR); of /dev/fuse: its connection is over. Never waits. */
export function isInError(fd: number): boolean {
  const entry = Buffer.alloc(POLLFD_BYTES);
  entry.writeInt32LE(fd);
  if (cPoll(entry, 1, 0) < 0) throw errnoError('poll', `descriptor ${fd}`);
  return (entry.readInt16LE(REVENTS_AT) & POLLERR) !== 0;
}
