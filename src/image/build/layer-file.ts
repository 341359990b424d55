import { createHash } from 'node:crypto';
import { open, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256OfFile } from '../../base/file-digest.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { writeLayer } from '../layer-writer.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';
import type { ZFileAlgorithm } from '../zfile/format.ts';

export interface LayerFileOptions {
  virtualSizeBytes: number;
  uuid: string;
  parentUuid: string | null;
  algorithm: ZFileAlgorithm;
  /** Of a ZFile block. */
  blockBytes: number;
  /** Have the bytes on the disk before the file gets its name; default true. */
  isDurable?: boolean;
}

/** A layer's blob, as registries store it, in a file. */
export interface LayerFile {
  /** Named after its digest. */
  path: string;
  /** Of the whole blob; also its diff id, since the tar is not compressed. */
  digest: string;
  sizeBytes: number;
  /** Data the layer holds, uncompressed. */
  dataBytes: number;
}

/**
 * A UUID (36 characters) that follows from a layer's parent, size and extents, so that equal content
 * gives an equal layer. Its digits are plain hash, as overlaybd's own derived ones are.
 */
export async function layerUuid(
  parentUuid: string | null,
  virtualSizeBytes: number,
  extents: AsyncIterable<LsmtExtent>,
): Promise<string> {
  const hash = createHash('sha256');
  hash.update(`replaybd layer\n${parentUuid ?? ''}\n${virtualSizeBytes}\n`);
  for await (const extent of extents) {
    hash.update(`${extent.lba} ${extent.sectors} ${extent.zeroed === true}\n`);
    if (!extent.zeroed) hash.update(extent.data);
  }
  const digits = hash.digest('hex');
  const groups = [
    digits.slice(0, 8),
    digits.slice(8, 12),
    digits.slice(12, 16),
    digits.slice(16, 20),
    digits.slice(20, 32),
  ];
  return groups.join('-').toUpperCase();
}

/** Writes extents as LSMT inside a ZFile inside a tar to a new file in `folder`. */
export async function writeLayerFile(
  folder: string,
  options: LayerFileOptions,
  extents: AsyncIterable<LsmtExtent>,
): Promise<LayerFile> {
  const partial = join(folder, `${options.uuid}.partial`);
  const file = await open(partial, 'wx');
  try {
    const { algorithm, blockBytes, virtualSizeBytes, uuid, parentUuid } = options;
    const { sizeBytes, lsmt } = await writeLayer(
      file,
      { zfile: { algorithm, blockBytes }, tar: true },
      { virtualSizeBytes, uuid, parentUuid },
      extents,
    );
    if (options.isDurable ?? true) await file.datasync();
    const hex = await sha256OfFile(partial);
    const path = join(folder, hex);
    await rename(partial, path);
    const dataBytes = lsmt.dataSectors * SECTOR_BYTES;
    return { path, digest: `sha256:${hex}`, sizeBytes, dataBytes };
  } finally {
    await file.close();
  }
}
