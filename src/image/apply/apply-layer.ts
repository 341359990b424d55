import { setImmediate as nextTurn } from 'node:timers/promises';
import { Ext2Filesystem } from '../../../native/ext2fs.ts';
import type { Ext2Image } from '../../../native/ext2fs-io.ts';
import { applyLimits } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { EXT4_EPOCH_SECONDS } from '../ext4/format.ts';
import { ImageFile, StagedImage } from '../ext4/staged-image.ts';
import { TarReader } from '../tar/reader.ts';
import { checkImage } from './check-image.ts';
import { LayerWriter } from './layer-writer.ts';

export interface ApplyProgress {
  entries: number;
  /** Of files' content that was stored. */
  bytes: number;
}

export interface ApplyLayerOptions {
  /** The file that holds the ext4 file system, whole; its holes stay holes. */
  imagePath: string;
  /** The layer's tar, uncompressed. */
  tar: AsyncIterable<Uint8Array>;
  /** Told after each entry and each piece of content. */
  onProgress?: ((progress: ApplyProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface AppliedLayer extends ApplyProgress {
  /** What was written, in order: whole blocks of the file system. May hold blocks that did not change. */
  dirty: ByteRange[];
}

/**
 * Applies an OCI layer's tar to the ext4 file system in a file: entries are added, replace what is
 * there or are merged with it (directories); whiteouts remove what lower layers have. The image's
 * bytes depend on the tar and on what the image was, and on nothing else.
 *
 * Until the whole tar was read and found good, only blocks are written that the file system does not
 * use: after an error it is what it was.
 * Errors: ERR_TAR_*, ERR_APPLY_*, ERR_EXT4_*, ERR_LIB_MISSING; the signal's reason.
 */
export async function applyLayer(options: ApplyLayerOptions): Promise<AppliedLayer> {
  using file = new ImageFile(options.imagePath);
  return await applyTar(file, { ...options, name: options.imagePath });
}

export interface ApplyTarOptions extends Omit<ApplyLayerOptions, 'imagePath'> {
  /** Of the image, for messages. */
  name: string;
}

/** As applyLayer, to any image. */
export async function applyTar(image: Ext2Image, options: ApplyTarOptions): Promise<AppliedLayer> {
  const { name, tar, onProgress, signal } = options;
  signal?.throwIfAborted();
  checkImage(image, name);
  const staged = new StagedImage(image);
  const filesystem = new Ext2Filesystem(staged, name, EXT4_EPOCH_SECONDS);
  let writer: LayerWriter;
  try {
    writer = new LayerWriter(filesystem, staged);
    const reader = new TarReader(writer);
    let bytesUntilTurn: number = applyLimits.turnBytes;
    for await (const chunk of tar) {
      reader.push(chunk);
      onProgress?.(writer.progress);
      signal?.throwIfAborted();
      bytesUntilTurn -= chunk.length;
      if (bytesUntilTurn > 0) continue;
      await nextTurn();
      bytesUntilTurn = applyLimits.turnBytes;
    }
    reader.end();
    signal?.throwIfAborted();
    writer.finish();
    filesystem.close();
  } catch (error) {
    filesystem.abandon();
    throw error;
  }
  return { ...writer.progress, dirty: staged.commit() };
}
