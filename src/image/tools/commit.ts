import { tryLockFile } from '../../../native/file-space.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { openLocalBlob } from '../../blob/local-blob.ts';
import { openFileBytes } from '../file-bytes.ts';
import { openLayerBlob } from '../layer-blob.ts';
import type { LayerBytes } from '../layer-bytes.ts';
import { extentsOf } from '../lsmt/compact.ts';
import type { LsmtEntryColumns } from '../lsmt/index-entries.ts';
import { openLsmtLayer } from '../lsmt/layer.ts';
import { overlayLayers } from '../lsmt/overlay.ts';
import { openUpper } from '../lsmt/upper.ts';
import { writeLayerOutput, type LayerOutput, type LayerOutputOptions } from './layer-output.ts';
import { withoutZeroBlocks } from './zero-blocks.ts';

export interface CommitOptions extends LayerOutputOptions {
  /** Default: none, as the original. */
  uuid?: string | null;
  /** Default: what the source says. */
  parentUuid?: string | null | undefined;
  /** The commit message, at most 256 bytes of UTF-8. */
  userTag?: string;
  /** Turn blocks of zeros into zeroed entries; the original's bytes differ then. */
  dropZeroes?: boolean;
}

/** What is committed. */
interface CommitSource {
  bytes: LayerBytes;
  entries: LsmtEntryColumns;
  virtualSizeBytes: number;
  parentUuid: string | null;
}

/**
 * Commits a writable layer: its data in LBA order, what was superseded left out. The bytes are those
 * of `overlaybd-commit` with the same options (file.cpp:289-453). The layer itself is only read.
 * Errors: ERR_UPPER_BUSY, those of openUpper, extentsOf and writeLayerOutput.
 */
export async function commitUpper(
  data: string,
  index: string,
  options: CommitOptions,
): Promise<LayerOutput> {
  const bytes = await openFileBytes(data);
  try {
    if (!tryLockFile(bytes.fd, data)) {
      throw new ReplaybdError(
        'ERR_UPPER_BUSY',
        `${data}: another device or tool has this writable layer open. Detach the device first, ` +
          'or take a snapshot of it and commit what that seals.',
        { errno: 'EBUSY' },
      );
    }
    const upper = await openUpper(data, index);
    const { virtualSizeBytes, parentUuid } = upper;
    return await commit({ bytes, entries: upper, virtualSizeBytes, parentUuid }, options);
  } finally {
    await bytes.close();
  }
}

/**
 * Commits a sealed layer, or any other read-only one, anew: `overlaybd-commit --commit_sealed`.
 * Errors: those of opening a layer, extentsOf and writeLayerOutput.
 */
export async function commitSealed(path: string, options: CommitOptions): Promise<LayerOutput> {
  const blob = await openLocalBlob(path);
  try {
    const { bytes } = await openLayerBlob(blob);
    const entries = await openLsmtLayer(bytes);
    const { virtualSizeBytes, parentUuid } = entries.facts;
    return await commit({ bytes, entries, virtualSizeBytes, parentUuid }, options);
  } finally {
    await blob.close();
  }
}

async function commit(source: CommitSource, options: CommitOptions): Promise<LayerOutput> {
  const extents = extentsOf(overlayLayers([source.entries]), [source.bytes]);
  const { uuid = null, parentUuid = source.parentUuid, userTag = '', dropZeroes } = options;
  const layer = { virtualSizeBytes: source.virtualSizeBytes, uuid, parentUuid, userTag };
  const kept = dropZeroes === true ? withoutZeroBlocks(extents, 'zeroed') : extents;
  return await writeLayerOutput(options, layer, kept);
}
