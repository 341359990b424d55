import assert from 'node:assert';
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';
import { ReplaybdError } from '../src/base/errors.ts';
import { libc } from './libc.ts';

// Node's own event loop (libuv, whose functions the node program exports) watches descriptors that
// Node has no class for: UIO devices, netlink sockets. No thread waits for them.

const node = koffi.load(null);
const uvDefaultLoop = node.func('intptr_t uv_default_loop()');
const uvHandleSize = node.func('size_t uv_handle_size(int type)');
const uvPollInit = node.func('int uv_poll_init(intptr_t loop, intptr_t handle, int fd)');
const uvPollStart = node.func('int uv_poll_start(intptr_t handle, int events, void *callback)');
const uvClose = node.func('void uv_close(intptr_t handle, void *callback)');
const uvStrerror = node.func('const char *uv_strerror(int error)');
const calloc = libc.func('intptr_t calloc(size_t count, size_t size)');
const free = libc.func('void free(intptr_t memory)');

const UV_POLL = 8;
const UV_READABLE = 1;

/** Ends the watching; the descriptor may be closed afterwards. May be called again. */
export interface FdWatch {
  close(): void;
}

const listeners = new Map<number, () => void>();

/** One callback for all watches: C sees the handle, we find the listener. */
const onPoll = koffi.register(
  (handle: number): void => {
    const listener = listeners.get(handle);
    // A call from C is not one of Node's: promises that it settles would wait for the next of those.
    if (listener !== undefined) setImmediate(runIfWatched, handle, listener);
  },
  koffi.pointer(koffi.proto('void rbd_on_poll(intptr_t handle, int status, int events)')),
);

const onClosed = koffi.register(
  (handle: number): void => free(handle),
  koffi.pointer(koffi.proto('void rbd_on_poll_closed(intptr_t handle)')),
);

function runIfWatched(handle: number, listener: () => void): void {
  if (listeners.get(handle) === listener) listener();
}

/**
 * Calls `onReadable` again and again while the descriptor has something to read, or is broken: it has
 * to read, without blocking, until nothing is left. Main thread only; keeps the process alive.
 * Errors: ERR_FD_WATCH.
 */
export function watchReadable(fd: number, onReadable: () => void): FdWatch {
  assert.ok(isMainThread, 'the default loop is the main thread’s');
  const handle: number = calloc(1, uvHandleSize(UV_POLL));
  const failed: number = uvPollInit(uvDefaultLoop(), handle, fd);
  if (failed !== 0) {
    free(handle);
    throw watchError(fd, failed);
  }
  listeners.set(handle, onReadable);
  const watch = { close: (): void => closeHandle(handle) };
  const notStarted: number = uvPollStart(handle, UV_READABLE, onPoll);
  if (notStarted === 0) return watch;
  watch.close();
  throw watchError(fd, notStarted);
}

function closeHandle(handle: number): void {
  if (listeners.delete(handle)) uvClose(handle, onClosed);
}

function watchError(fd: number, status: number): ReplaybdError {
  return new ReplaybdError(
    'ERR_FD_WATCH',
    `descriptor ${fd} cannot be watched: ${String(uvStrerror(status))}`,
  );
}
