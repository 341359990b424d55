import { randomUUID } from 'node:crypto';
import { open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder } from '../../base/atomic-file.ts';
import { codeOf, ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES, upperLimits } from '../../base/limits.ts';
import { LSMT_BLOCK_BYTES, serializeLsmtBlock } from './format.ts';
import { pendingPath } from './pending-file.ts';
import { sidecarHeader, sidecarPath } from './sidecar.ts';
import type { UpperKind } from './upper-map.ts';

/** The files of a writable layer, as `upper` of a config.v1.json names them. */
export interface UpperPaths {
  data: string;
  /** A sparse layer's is empty; the original wants it to exist. */
  index: string;
}

/** All files that a layer may have: those, a sparse one's sidecar, and what a killed process left. */
export function upperFiles({ data, index }: UpperPaths): string[] {
  return [data, index, sidecarPath(data), pendingPath(data)];
}

export interface CreateUpperOptions extends UpperPaths {
  kind: UpperKind;
  /** Whole sectors. */
  virtualSizeBytes: number;
  /** A random one when absent, as the original gives; null for none. */
  uuid?: string | null;
  parentUuid?: string | null;
}

/**
 * Creates an empty writable layer, durably, or nothing. The files are the original's; a sparse
 * layer gets its sidecar besides. Errors: ERR_UPPER_EXISTS, ERR_UPPER_SIZE, ERR_LSMT_UUID, and
 * those of the file system.
 */
export async function createUpper(options: CreateUpperOptions): Promise<void> {
  const { kind, data, index, virtualSizeBytes } = options;
  checkUpperSize(data, virtualSizeBytes);
  const uuid = options.uuid === undefined ? randomUUID().toUpperCase() : options.uuid;
  const block = {
    isHeader: true,
    isSealed: false,
    virtualSizeBytes,
    uuid,
    parentUuid: options.parentUuid ?? null,
    userTag: '',
  };
  const isSparse = kind === 'sparse';
  const dataHeader = serializeLsmtBlock({
    ...block,
    isData: true,
    isSparse,
    indexOffset: 0,
    indexCount: 0,
  });
  const indexHeader = serializeLsmtBlock({
    ...block,
    isData: false,
    isSparse: false,
    indexOffset: LSMT_BLOCK_BYTES,
    indexCount: 0,
  });
  const none = new Uint8Array(0);
  const files: NewFile[] = [
    {
      path: data,
      bytes: dataHeader,
      sizeBytes: isSparse ? LSMT_BLOCK_BYTES + virtualSizeBytes : 0,
    },
    { path: index, bytes: isSparse ? none : indexHeader, sizeBytes: 0 },
  ];
  if (isSparse) files.push({ path: sidecarPath(data), bytes: sidecarHeader(uuid), sizeBytes: 0 });
  const created = await Promise.allSettled(files.map(createFile));
  try {
    // Before the folders: a layer that is there is there whole.
    const failed = created.find((one) => one.status === 'rejected');
    if (failed !== undefined) throw failed.reason;
    for (const folder of new Set(files.map(({ path }) => dirname(path)))) await syncFolder(folder);
  } catch (error) {
    const mine = files.filter((_, i) => created[i].status === 'fulfilled');
    await Promise.all(mine.map(({ path }) => unlink(path).catch(() => undefined)));
    throw error;
  }
}

/** Throws ERR_UPPER_SIZE for a disk that cannot be written. */
export function checkUpperSize(name: string, virtualSizeBytes: number): void {
  const isPossible = virtualSizeBytes > 0 && virtualSizeBytes <= upperLimits.virtualSizeBytesMax;
  if (isPossible && virtualSizeBytes % SECTOR_BYTES === 0) return;
  throw new ReplaybdError(
    'ERR_UPPER_SIZE',
    `${name}: expected a virtual size of whole sectors, at most ` +
      `${upperLimits.virtualSizeBytesMax} bytes, found ${virtualSizeBytes}`,
    { errno: 'EINVAL' },
  );
}

interface NewFile {
  path: string;
  bytes: Uint8Array;
  /** Size when it is larger than what is written. */
  sizeBytes: number;
}

async function createFile({ path, bytes, sizeBytes }: NewFile): Promise<void> {
  let file;
  try {
    file = await open(path, 'wx', 0o644);
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    throw new ReplaybdError(
      'ERR_UPPER_EXISTS',
      `${path}: exists already. Open it, or remove it first.`,
      { cause: error, errno: 'EINVAL' },
    );
  }
  try {
    await file.writeFile(bytes);
    if (sizeBytes > bytes.length) await file.truncate(sizeBytes);
    await file.sync();
  } catch (error) {
    await unlink(path).catch(() => undefined);
    throw error;
  } finally {
    await file.close();
  }
}
