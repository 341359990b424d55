import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { open, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Writable } from 'node:stream';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';

export interface OutputFileOptions {
  /** Replace a file that is there already. */
  replace?: boolean;
  /** Have the bytes on the disk before the file gets its name; default true. */
  isDurable?: boolean;
  /** Rejects with the signal's reason, and leaves nothing behind. */
  signal?: AbortSignal | undefined;
}

/**
 * Makes a file that appears under its name only when `work` has written all of it; a failure leaves
 * nothing behind. Who may read it is up to the umask. Errors: ERR_OUTPUT_EXISTS, ERR_OUTPUT_TARGET when
 * `path` is something else than a file, ERR_OUTPUT_WRITE, also for want of its folder, and what `work`
 * throws.
 */
export async function writeOutputFile<T>(
  path: string,
  options: OutputFileOptions,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const temporary = `${path}.partial-${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    await checkTarget(path, options.replace ?? false);
    const file = await open(temporary, 'wx+', 0o666);
    try {
      const result = await work(file);
      if (options.isDurable ?? true) await file.sync();
      options.signal?.throwIfAborted();
      await checkTarget(path, options.replace ?? false);
      await rename(temporary, path);
      return result;
    } catch (error) {
      await unlink(temporary).catch(() => undefined);
      throw error;
    } finally {
      await file.close();
    }
  } catch (error) {
    throw asOutputError(error, path);
  }
}

/** Writes all of some bytes. Errors: ERR_OUTPUT_WRITE. */
export async function writeToStream(stream: Writable, bytes: Uint8Array): Promise<void> {
  // A stream reports a failed write twice; the event alone would end the process.
  const ignore = () => undefined;
  stream.on('error', ignore);
  try {
    await new Promise<void>((resolve, reject) => {
      stream.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  } catch (error) {
    throw asOutputError(error, 'the output');
  }
  stream.off('error', ignore);
}

/** A failed write, as an error that names its target; ours stay as they are. */
export function asOutputError(error: unknown, target: string): ReplaybdError {
  if (error instanceof ReplaybdError) return error;
  const message = `${target}: cannot be written: ${messageOf(error)}`;
  return new ReplaybdError('ERR_OUTPUT_WRITE', message, { cause: error });
}

async function checkTarget(path: string, mayReplace: boolean): Promise<void> {
  const existing = await statIfThere(path);
  if (existing === null) {
    await checkFolder(path);
    return;
  }
  if (existing.isFile()) {
    if (mayReplace) return;
    throw new ReplaybdError(
      'ERR_OUTPUT_EXISTS',
      `${path}: exists already. Use --force to replace it.`,
    );
  }
  throw new ReplaybdError(
    'ERR_OUTPUT_TARGET',
    `${path}: expected a regular file or none, found ` +
      (existing.isDirectory() ? 'a folder. Name a file in it.' : 'something else.'),
  );
}

async function checkFolder(path: string): Promise<void> {
  const folder = dirname(path);
  if ((await statIfThere(folder)) !== null) return;
  throw new ReplaybdError(
    'ERR_OUTPUT_WRITE',
    `${path}: expected the folder ${folder} to write into, found none. Make it first.`,
  );
}

async function statIfThere(path: string): Promise<Stats | null> {
  return await stat(path).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
}
