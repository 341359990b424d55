import { realpathSync, writeSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { isAbsolute, relative } from 'node:path';
import { ReplaybdError } from '../../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES, zfileLimits } from '../../base/limits.ts';
import { addTree, createExt4 } from '../ext4/build.ts';
import { defaultInodeCount, defaultVirtualSizeBytes, scanTree } from '../ext4/scan.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';
import type { ZFileAlgorithm } from '../zfile/format.ts';
import { changedExtents, type DiskFile } from './changed-extents.ts';
import { layerUuid, writeLayerFile, type LayerFile } from './layer-file.ts';
import { openScratchFile } from './scratch-file.ts';

export interface BuildProgress {
  phase: 'scan' | 'copy' | 'compress';
  /** Index of the layer, from the bottom. */
  layer: number;
  /** Content copied, or disk data compressed, so far. */
  bytes: number;
}

export interface BuildLayersOptions {
  /** One directory a layer, the bottom first. Later ones add and replace; nothing is removed. */
  rootfs: readonly string[];
  /** Where layers appear, and scratch files of the content's size live; must exist. */
  workFolder: string;
  /** A multiple of 4 KiB; by default what all content needs, see defaultVirtualSizeBytes. */
  virtualSizeBytes?: number | undefined;
  /** At least so many in the file system; by default what defaultInodeCount gives. */
  inodeCount?: number | undefined;
  /** Default 'lz4'. */
  algorithm?: ZFileAlgorithm | undefined;
  /** Of a ZFile block: 4 KiB (the default) to 64 KiB. */
  blockBytes?: number | undefined;
  onProgress?: ((progress: BuildProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface BuiltLayer extends LayerFile {
  uuid: string;
}

export interface BuiltLayers {
  virtualSizeBytes: number;
  /** The bottom first. */
  layers: BuiltLayer[];
}

/**
 * Builds overlaybd layers: layer k holds the blocks in which the ext4 file system changes when
 * directory k is copied onto what the ones below left. Equal content gives equal layers: a layer
 * depends on what is below it, and on the size of the disk and the number of inodes.
 * Errors: those of buildExt4 and addTree, ERR_LSMT_ENTRIES, ERR_ZFILE_BLOCK_SIZE.
 */
export async function buildLayers(options: BuildLayersOptions): Promise<BuiltLayers> {
  const { rootfs, workFolder, onProgress, signal } = options;
  if (rootfs.length === 0 || rootfs.length > lsmtLimits.layersMax) {
    throw new ReplaybdError(
      'ERR_IMAGE_LAYERS',
      `image: expected 1 to ${lsmtLimits.layersMax} directories, found ${rootfs.length}.`,
    );
  }
  onProgress?.({ phase: 'scan', layer: 0, bytes: 0 });
  const total = { entries: 0, bytes: 0 };
  for (const folder of rootfs) {
    const size = await scanTree(folder, signal);
    total.entries += size.entries;
    total.bytes += size.bytes;
    refuseInside(folder, workFolder);
  }
  const virtualSizeBytes =
    options.virtualSizeBytes ?? defaultVirtualSizeBytes(total, options.inodeCount);
  const inodeCount = options.inodeCount ?? defaultInodeCount(virtualSizeBytes, total.entries);

  using image = openScratchFile(workFolder, 'current.ext4');
  using below = openScratchFile(workFolder, 'previous.ext4');
  await truncate(below.path, virtualSizeBytes);
  await createExt4(image.path, { virtualSizeBytes, inodeCount, signal });
  const layers: BuiltLayer[] = [];
  for (const [layer, folder] of rootfs.entries()) {
    await addTree({
      rootfs: folder,
      imagePath: image.path,
      onProgress: ({ bytes }) => onProgress?.({ phase: 'copy', layer, bytes }),
      signal,
    });
    const disks = { image, previous: layer === 0 ? null : below };
    const keep = layer + 1 < rootfs.length ? below : null;
    const parentUuid = layers.at(-1)?.uuid ?? null;
    layers.push(await buildLayer(options, { ...disks, keep, parentUuid, layer, virtualSizeBytes }));
  }
  return { virtualSizeBytes, layers };
}

/** What is written during the build must not be part of what is read. */
function refuseInside(rootfs: string, workFolder: string): void {
  const inner = relative(realpathSync(rootfs), realpathSync(workFolder));
  if (inner.startsWith('..') || isAbsolute(inner)) return;
  throw new ReplaybdError(
    'ERR_IMAGE_TARGET',
    `${workFolder}: lies inside ${rootfs}, which is the image's content. Write somewhere else.`,
  );
}

interface LayerWork {
  image: DiskFile;
  previous: DiskFile | null;
  /** Becomes equal to `image` on the way. */
  keep: DiskFile | null;
  parentUuid: string | null;
  layer: number;
  virtualSizeBytes: number;
}

async function buildLayer(options: BuildLayersOptions, work: LayerWork): Promise<BuiltLayer> {
  const { image, previous, keep, parentUuid, layer, virtualSizeBytes } = work;
  const { workFolder, onProgress, signal } = options;
  const changes = () => changedExtents(image, previous, virtualSizeBytes, signal);
  const uuid = await layerUuid(parentUuid, virtualSizeBytes, changes());
  const { algorithm = 'lz4', blockBytes = zfileLimits.blockBytesMin } = options;
  const settings = { virtualSizeBytes, uuid, parentUuid, algorithm, blockBytes };
  const report = (bytes: number) => onProgress?.({ phase: 'compress', layer, bytes });
  const file = await writeLayerFile(workFolder, settings, watched(changes(), keep, report));
  return { ...file, uuid };
}

/** Passes extents on, having copied them to `keep` and counted them. */
async function* watched(
  extents: AsyncIterable<LsmtExtent>,
  keep: DiskFile | null,
  report: (bytes: number) => void,
): AsyncGenerator<LsmtExtent> {
  let bytes = 0;
  for await (const extent of extents) {
    if (keep !== null) applyExtent(keep, extent);
    bytes += extent.sectors * SECTOR_BYTES;
    report(bytes);
    yield extent;
  }
}

function applyExtent(disk: DiskFile, extent: LsmtExtent): void {
  const bytes = extent.zeroed ? Buffer.alloc(extent.sectors * SECTOR_BYTES) : extent.data;
  let done = 0;
  while (done < bytes.length) {
    const position = extent.lba * SECTOR_BYTES + done;
    done += writeSync(disk.fd, bytes, done, bytes.length - done, position);
  }
}
