import {
  closeSync,
  constants,
  fsyncSync,
  openSync,
  readSync,
  rmdirSync,
  statfsSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { parentPort } from 'node:worker_threads';
import { codeOf, messageOf } from '../src/base/errors.ts';
import { attachLoop, clearLoop, detachLoop, resizeLoop } from './loop.ts';
import { mount, syncFilesystem, unmount } from './mount.ts';
import { StopGuard } from './stop-guard.ts';

// The thread behind BlockingThread: calls that the kernel may answer only after this process has
// answered a read.

/** The first bytes of a file or device; fewer when it is shorter. */
function readHead(path: string, length: number): Uint8Array {
  const fd = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(length);
    return bytes.subarray(0, readSync(fd, bytes, 0, length, 0));
  } finally {
    closeSync(fd);
  }
}

/** Throws what the kernel has against opening the device; nothing of it is read. */
function probeDevice(path: string): void {
  closeSync(openSync(path, 'r'));
}

/** Throws ENOTCONN on a FUSE mount whose server is gone; cached attributes cannot hide it. */
function probeFilesystem(path: string): void {
  statfsSync(path);
}

function writeAttribute(path: string, text: string): void {
  // Some can only be written, which holds for root too, and none can be created.
  const fd = openSync(path, constants.O_WRONLY);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}

const calls = {
  attachLoop,
  clearLoop,
  detachLoop,
  resizeLoop,
  mount,
  unmount,
  syncFilesystem,
  /** Of a loop device: what was written to it without a file system. */
  fsync: fsyncSync,
  readHead,
  probeDevice,
  probeFilesystem,
  /** These wait for a device where the files are configfs's. */
  writeAttribute,
  symlink: symlinkSync as (target: string, path: string) => void,
  unlink: unlinkSync as (path: string) => void,
  rmdir: rmdirSync as (path: string) => void,
};

export type BlockingCalls = typeof calls;

export interface BlockingRequest {
  name: keyof BlockingCalls;
  args: readonly unknown[];
}

export type BlockingAnswer = { value: unknown } | { code: string; message: string };

const guard = new StopGuard();
const ended: BlockingAnswer = { code: 'ERR_BLOCKING_THREAD', message: 'the thread is ending' };

parentPort?.on('message', (request: BlockingRequest | null) => {
  if (request === null) return parentPort?.close();
  const { name, args } = request;
  const call = calls[name] as (...args: readonly unknown[]) => unknown;
  parentPort?.postMessage(guard.isEnding ? ended : answer(call, args));
});
// Calls need no guard: they take numbers, texts and buffers, which koffi reads without running code.
guard.leave();

function answer(
  call: (...args: readonly unknown[]) => unknown,
  args: readonly unknown[],
): BlockingAnswer {
  try {
    return { value: call(...args) };
  } catch (error) {
    return { code: codeOf(error), message: messageOf(error) };
  }
}
