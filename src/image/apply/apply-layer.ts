import type { ByteRange } from '../../base/range.ts';

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
  const { signal } = options;
  signal?.throwIfAborted();
  throw new Error('applyLayer is not there yet');
}
