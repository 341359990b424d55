import { open } from 'node:fs/promises';
import { readPieces } from '../../native/file-pieces.ts';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import type { LayerBytes } from './layer-bytes.ts';

/** A file of one's own as a layer's bytes: a writable layer's data, which nothing wraps. */
export interface FileBytes extends LayerBytes {
  readonly fd: number;
  close(): Promise<void>;
}

/** Opens a file to read it. ERR_FILE_READ, also from its reads. */
export async function openFileBytes(path: string): Promise<FileBytes> {
  const file = await open(path, 'r').catch((error: unknown) => {
    const message = `${path}: cannot be read: ${messageOf(error)}`;
    throw new ReplaybdError('ERR_FILE_READ', message, { cause: error });
  });
  try {
    const { size } = await file.stat();
    return {
      name: path,
      sizeBytes: size,
      fd: file.fd,
      read: async (offset, length) => {
        const bytes = new Uint8Array(length);
        await readPieces(file.fd, [{ offset, length, target: 0 }], bytes, path);
        return bytes;
      },
      readPieces: (pieces, into) => readPieces(file.fd, pieces, into, path),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}
