import { open, unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { syncFolder } from '../../base/atomic-file.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { EXT4_BLOCK_BYTES } from '../../../native/ext2fs.ts';
import { openScratchFile } from '../build/scratch-file.ts';
import { exportInto } from '../export.ts';
import { openFileBytes } from '../file-bytes.ts';
import type { OpenedInput } from '../input.ts';
import type { UpperPaths } from '../lsmt/create-upper.ts';
import { extentsOf } from '../lsmt/compact.ts';
import { openLsmtLayer } from '../lsmt/layer.ts';
import { overlayLayers } from '../lsmt/overlay.ts';
import { hasResizeJournal, resizeJournalPath } from '../lsmt/resize-journal.ts';
import { openWritableUpper, type WritableUpper } from '../lsmt/writable-upper.ts';
import { diskChanges } from './disk-changes.ts';
import { writeLayerOutput } from './layer-output.ts';
import { resizeExt4 } from './resize-ext4.ts';
import { writeExtents } from './write-extents.ts';

export interface ResizeOptions {
  upper: UpperPaths;
  /** Whole blocks of 4 KiB. */
  sizeBytes: number;
  /** Opens the image anew: its lowers, and the upper as it is now. The caller of it closes it. */
  openImage: () => Promise<OpenedInput>;
  signal?: AbortSignal | undefined;
}

export interface Resized {
  previousBytes: number;
  virtualSizeBytes: number;
  /** Bytes of the disk that the writable layer got. */
  changedBytes: number;
  /** An earlier resize had been interrupted, and was finished first. */
  finishedEarlier: boolean;
}

/**
 * Grows or shrinks a disk and the ext4 on it: `overlaybd-resize`. The file system is changed on a
 * copy; what differs goes to the writable layer. As that takes many writes, they are first put into
 * a journal beside the layer:
 *
 *   copy -> e2fsck, resize2fs, e2fsck -> differences -> journal (durable) -> layer -> journal gone
 *
 * Stopped before the journal has its name nothing has changed; after it, the layer cannot be opened
 * until the next resize has finished this one. The order is the original's: the disk grows before
 * its file system does, and shrinks after it. Errors: ERR_RESIZE_SIZE, those of resizeExt4,
 * openWritableUpper, openImage and writing.
 */
export async function resizeImage(options: ResizeOptions): Promise<Resized> {
  const { upper: paths, sizeBytes } = options;
  if (sizeBytes <= 0 || sizeBytes % EXT4_BLOCK_BYTES !== 0) {
    throw new ReplaybdError(
      'ERR_RESIZE_SIZE',
      `resize: expected a size of whole blocks of ${EXT4_BLOCK_BYTES} bytes, found ${sizeBytes}`,
    );
  }
  const finishedEarlier = await finishInterrupted(paths);
  await using held = await holdUpper(options);
  const { upper } = held;
  const previousBytes = upper.virtualSizeBytes;
  await writeJournal(options);
  const changedBytes = await redo(upper);
  return { previousBytes, virtualSizeBytes: sizeBytes, changedBytes, finishedEarlier };
}

interface HeldUpper extends AsyncDisposable {
  upper: WritableUpper;
}

/** The layer, locked. One that states no size has that of the disk. */
async function holdUpper({ upper: paths, openImage }: ResizeOptions): Promise<HeldUpper> {
  const image = await openImage();
  const { virtualSizeBytes } = image.source;
  await image.close();
  const upper = await openWritableUpper(paths, { virtualSizeBytes });
  return { upper, [Symbol.asyncDispose]: () => upper.close() };
}

async function writeJournal({ upper, sizeBytes, openImage, signal }: ResizeOptions): Promise<void> {
  const image = await openImage();
  try {
    const { source } = image;
    using scratch = openScratchFile(dirname(upper.data), `.replaybd-resize-${process.pid}`);
    const disk = await open(scratch.path, 'r+');
    try {
      await exportInto(disk, source, signal === undefined ? {} : { signal });
      if (sizeBytes > source.virtualSizeBytes) await disk.truncate(sizeBytes);
      await resizeExt4(scratch, upper.data, sizeBytes, { signal });
      await disk.truncate(sizeBytes);
    } finally {
      await disk.close();
    }
    const path = resizeJournalPath(upper.data);
    await writeLayerOutput(
      { path, packing: { zfile: null, tar: false }, signal },
      { virtualSizeBytes: sizeBytes },
      diskChanges(source, scratch, sizeBytes, signal),
    );
    await syncFolder(dirname(path));
  } finally {
    await image.close();
  }
}

/** Does what the journal says, as often as it takes, and removes it; the bytes that changed. */
async function redo(upper: WritableUpper): Promise<number> {
  const path = resizeJournalPath(upper.paths.data);
  const bytes = await openFileBytes(path);
  try {
    const journal = await openLsmtLayer(bytes);
    const { virtualSizeBytes, dataSectors } = journal.facts;
    if (virtualSizeBytes > upper.virtualSizeBytes) await upper.resize(virtualSizeBytes);
    await writeExtents(upper, extentsOf(overlayLayers([journal]), [bytes]));
    await upper.flush();
    if (virtualSizeBytes < upper.virtualSizeBytes) await upper.resize(virtualSizeBytes);
    await unlink(path);
    await syncFolder(dirname(path));
    return dataSectors * SECTOR_BYTES;
  } finally {
    await bytes.close();
  }
}

async function finishInterrupted(paths: UpperPaths): Promise<boolean> {
  if (!(await hasResizeJournal(paths.data))) return false;
  const upper = await openWritableUpper(paths, { finishesResize: true });
  try {
    await redo(upper);
  } finally {
    await upper.close();
  }
  return true;
}
