import { unlink } from 'node:fs/promises';
import { dirname } from 'node:path';
import { createExt4 } from '../ext4/build.ts';
import { changedExtents } from '../build/changed-extents.ts';
import { openScratchFile } from '../build/scratch-file.ts';
import { createUpper, upperFiles, type CreateUpperOptions } from '../lsmt/create-upper.ts';
import { openWritableUpper } from '../lsmt/writable-upper.ts';
import { writeExtents } from './write-extents.ts';

export interface CreateLayerOptions extends CreateUpperOptions {
  /** Make an empty ext4 file system on the disk. */
  mkfs: boolean;
  signal?: AbortSignal | undefined;
}

/**
 * Creates a writable layer: `overlaybd-create`. After a failure nothing is left of it.
 * Errors: those of createUpper, createExt4 and writing.
 */
export async function createLayer(options: CreateLayerOptions): Promise<void> {
  await createUpper(options);
  if (!options.mkfs) return;
  try {
    await makeFileSystem(options);
  } catch (error) {
    await Promise.all(upperFiles(options).map((path) => unlink(path).catch(() => undefined)));
    throw error;
  }
}

async function makeFileSystem(options: CreateLayerOptions): Promise<void> {
  const { data, virtualSizeBytes, signal } = options;
  using disk = openScratchFile(dirname(data), `.replaybd-mkfs-${process.pid}`);
  await createExt4(disk.path, { virtualSizeBytes, signal });
  const upper = await openWritableUpper(options);
  try {
    await writeExtents(upper, changedExtents(disk, null, virtualSizeBytes, signal));
    await upper.flush();
  } finally {
    await upper.close();
  }
}
