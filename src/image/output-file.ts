import { randomBytes } from 'node:crypto';
import { open, rename, stat, unlink, type FileHandle } from 'node:fs/promises';
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
 * nothing behind. Errors: ERR_OUTPUT_EXISTS, ERR_OUTPUT_TARGET when `path` is something else than a
 * file, ERR_OUTPUT_WRITE, and what `work` throws.
 */
export async function writeOutputFile<T>(
  path: string,
  options: OutputFileOptions,
  work: (file: FileHandle) => Promise<T>,
): Promise<T> {
  const temporary = `${path}.partial-${process.pid}-${randomBytes(4).toString('hex')}`;
  try {
    await checkTarget(path, options.replace ?? false);
    const file = await open(temporary, 'wx+', 0o644);
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

/** A failed write, as an error that names its target; ours stay as they are. */
export function asOutputError(error: unknown, target: string): ReplaybdError {
  if (error instanceof ReplaybdError) return error;
  const message = `${target}: cannot be written: ${messageOf(error)}`;
  return new ReplaybdError('ERR_OUTPUT_WRITE', message, { cause: error });
}

async function checkTarget(path: string, mayReplace: boolean): Promise<void> {
  const existing = await stat(path).catch((error: unknown) => {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  });
  if (existing === null) return;
  if (existing.isFile()) {
    if (mayReplace) return;
    throw new ReplaybdError(
      'ERR_OUTPUT_EXISTS',
      `${path}: exists already. Use --force to replace it.`,
    );
  }
  throw new ReplaybdError(
    'ERR_OUTPUT_TARGET',
    `${path}: expected a regular file or none, found something else.`,
  );
}
