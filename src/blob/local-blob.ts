import { open } from 'node:fs/promises';
import { ReplaybdError } from '../base/errors.ts';
import { mapFile } from '../../native/memory-map.ts';
import type { Blob } from './blob.ts';
import { TouchLedger } from './touch-ledger.ts';

/**
 * A whole file as a blob, mapped read-only; the file must not shrink while it is open. Throws
 * ERR_BLOB_OPEN.
 */
export async function openLocalBlob(path: string): Promise<Blob> {
  let file;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw new ReplaybdError('ERR_BLOB_OPEN', `${path}: cannot be opened as a layer`, {
      cause: error,
      errno: 'ENOENT',
    });
  }
  try {
    const found = await file.stat();
    if (!found.isFile()) throw new ReplaybdError('ERR_BLOB_OPEN', `${path}: is not a file`);
    const map = mapFile(file.fd, found.size, path);
    const ledger = new TouchLedger(found.size);
    return {
      name: path,
      digest: null,
      sizeBytes: found.size,
      map: { address: map.address, sizeBytes: found.size, presence: null },
      bytes: map.bytes,
      has: () => true,
      ensure: () => Promise.resolve(),
      drop: () => false,
      touch: (offset, length) => ledger.touch(offset, length, () => 'cached'),
      touchedIn: (offset, length) => ledger.touchedIn(offset, length),
      close: async () => map.unmap(),
    };
  } finally {
    await file.close();
  }
}
