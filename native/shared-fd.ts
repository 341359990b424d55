import { ftruncateSync } from 'node:fs';
import { errnoError, libc } from './libc.ts';

const memfdCreate = libc.func('int memfd_create(const char *name, uint32_t flags)');
const eventfd = libc.func('int eventfd(uint32_t value, int flags)');
const control = libc.func('int fcntl(int fd, int command, int argument)');
const write = libc.func('intptr_t write(int fd, const void *bytes, size_t length)');
const read = libc.func('intptr_t read(int fd, void *bytes, size_t length)');

const MFD_CLOEXEC = 1;
const EFD_NONBLOCK_CLOEXEC = 0x800 | 0x80000;
const F_GETFL = 3;
const F_SETFL = 4;
const O_NONBLOCK = 0x800;
const EAGAIN = 11;

const one = new Uint8Array(new BigUint64Array([1n]).buffer);
const taken = new Uint8Array(8);

/** A file of zeros in memory, which other processes can map when they are given the descriptor. */
export function createMemoryFile(name: string, sizeBytes: number): number {
  const fd: number = memfdCreate(name, MFD_CLOEXEC);
  if (fd < 0) throw errnoError('memfd_create', name);
  ftruncateSync(fd, sizeBytes);
  return fd;
}

/** An eventfd(2), for both sides to wait on. */
export function createEvent(): number {
  const fd: number = eventfd(0, EFD_NONBLOCK_CLOEXEC);
  if (fd < 0) throw errnoError('eventfd', 'creation');
  return fd;
}

/** A write to a descriptor of others must not wait for them. */
export function makeNonBlocking(fd: number): void {
  const flags: number = control(fd, F_GETFL, 0);
  if (flags < 0 || control(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
    throw errnoError('fcntl', `descriptor ${fd}`);
  }
}

/** Wakes who waits on the event; one that is full, or that nobody has any more, is left alone. */
export function raiseEvent(fd: number): void {
  write(fd, one, one.length);
}

/** Takes an event's count back. False when the descriptor is not a live event any more. */
export function clearEvent(fd: number): boolean {
  const bytes = Number(read(fd, taken, taken.length));
  if (bytes >= 0) return bytes === taken.length;
  return errnoError('read', `descriptor ${fd}`).errnoNumber === EAGAIN;
}
