import { closeSync, constants, createReadStream, fstatSync, openSync, read } from 'node:fs';
import { access } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { messageOf, ReplaybdError } from '../../base/errors.ts';

/** The name of standard input among paths. */
export const STANDARD_INPUT = '-';

const CHUNK_BYTES = 1024 * 1024;
const readAsync = promisify(read);

/**
 * The bytes of a file, a FIFO or, for `-`, standard input, from where it is at. Each chunk is good
 * until the next one is asked for. Whoever stops reading closes it; the signal ends it with its
 * reason. Errors: ERR_INPUT_READ.
 */
export async function* inputBytes(
  path: string,
  signal?: AbortSignal,
): AsyncGenerator<Buffer, void> {
  try {
    // A FIFO that nobody writes to yet must not keep a thread waiting.
    const flags = constants.O_RDONLY | constants.O_NONBLOCK;
    const fd = path === STANDARD_INPUT ? 0 : openSync(path, flags);
    const stats = fstatSync(fd);
    if (stats.isFile()) yield* fileBytes(fd, signal);
    else if (stats.isFIFO() || stats.isSocket()) {
      yield* streamBytes(new Socket({ fd, readable: true, writable: false }), signal);
    } else yield* streamBytes(createReadStream('', { fd, highWaterMark: CHUNK_BYTES }), signal);
  } catch (error) {
    signal?.throwIfAborted();
    throw inputError(path, error);
  }
}

/** Refuses an input that cannot be opened, before anything is done for it. ERR_INPUT_READ. */
export async function checkInput(path: string): Promise<void> {
  if (path === STANDARD_INPUT) return;
  await access(path, constants.R_OK).catch((error: unknown) => {
    throw inputError(path, error);
  });
}

function inputError(path: string, cause: unknown): ReplaybdError {
  const name = path === STANDARD_INPUT ? 'standard input' : path;
  const message = `${name}: cannot be read: ${messageOf(cause)}`;
  return new ReplaybdError('ERR_INPUT_READ', message, { cause });
}

/** Reads a chunk while the one before is used. */
async function* fileBytes(fd: number, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
  const buffers = [Buffer.alloc(CHUNK_BYTES), Buffer.alloc(CHUNK_BYTES)] as const;
  let [current, other] = buffers;
  let reading = readAsync(fd, current, 0, CHUNK_BYTES, null);
  try {
    for (;;) {
      const { bytesRead } = await reading;
      signal?.throwIfAborted();
      if (bytesRead === 0) return;
      reading = readAsync(fd, other, 0, CHUNK_BYTES, null);
      // It is awaited in the next round, if there is one.
      reading.catch(() => undefined);
      yield current.subarray(0, bytesRead);
      [current, other] = [other, current];
    }
  } finally {
    await reading.catch(() => undefined);
    closeSync(fd);
  }
}

async function* streamBytes(stream: Readable, signal?: AbortSignal): AsyncGenerator<Buffer, void> {
  const stop = () => stream.destroy(new Error('aborted'));
  signal?.addEventListener('abort', stop, { once: true });
  try {
    signal?.throwIfAborted();
    for await (const chunk of stream) yield chunk as Buffer;
  } finally {
    signal?.removeEventListener('abort', stop);
    stream.destroy();
  }
}
