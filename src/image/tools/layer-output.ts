import { SECTOR_BYTES } from '../../base/limits.ts';
import { writeLayer, type LayerPacking } from '../layer-writer.ts';
import type { LsmtExtent, LsmtWriterOptions } from '../lsmt/writer.ts';
import { writeOutputFile, type OutputFileOptions } from '../output-file.ts';
import { ORIGINAL_READS_BYTES_MAX } from '../zfile/writer.ts';

/** A layer file to be made, whatever of. */
export interface LayerOutputOptions extends OutputFileOptions {
  path: string;
  packing: LayerPacking;
  /** Called as the layer is made, with the bytes of its LSMT file so far. */
  onProgress?: ((bytes: number) => void) | undefined;
}

/** What was made. Sizes are bytes. */
export interface LayerOutput {
  path: string;
  /** Of the file. */
  sizeBytes: number;
  virtualSizeBytes: number;
  /** Of the index, without padding. */
  entries: number;
  /** Data the layer holds, uncompressed. */
  dataBytes: number;
  /** False when a block is stored in more bytes than the original's reader takes. */
  isReadableByOriginal: boolean;
}

/** Writes extents as a layer file. Errors: those of writeOutputFile and writeLayer. */
export async function writeLayerOutput(
  options: LayerOutputOptions,
  layer: LsmtWriterOptions,
  extents: AsyncIterable<LsmtExtent>,
): Promise<LayerOutput> {
  const { path, packing, signal, onProgress } = options;
  return await writeOutputFile(path, options, async (file) => {
    const written = await writeLayer(file, packing, layer, extents, (bytes) => {
      signal?.throwIfAborted();
      onProgress?.(bytes);
    });
    return {
      path,
      sizeBytes: written.sizeBytes,
      virtualSizeBytes: layer.virtualSizeBytes,
      entries: written.lsmt.entries,
      dataBytes: written.lsmt.dataSectors * SECTOR_BYTES,
      isReadableByOriginal: (written.zfile?.storedBlockBytesMax ?? 0) <= ORIGINAL_READS_BYTES_MAX,
    };
  });
}
