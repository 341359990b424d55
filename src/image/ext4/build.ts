import { Ext2Filesystem } from '../../../native/ext2fs.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { EXT4_EPOCH_SECONDS, formatExt4 } from './format.ts';
import { defaultInodeCount, defaultVirtualSizeBytes, scanTree } from './scan.ts';
import { ImageFile, StagedImage } from './staged-image.ts';
import { TreeWriter, type TreeProgress } from './tree-writer.ts';

export interface AddTreeOptions {
  /** The directory to copy; its own attributes become the root directory's. */
  rootfs: string;
  /** The file that holds the file system. */
  imagePath: string;
  onProgress?: ((progress: TreeProgress) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface BuildExt4Options extends AddTreeOptions {
  /** A multiple of 4 KiB; by default what defaultVirtualSizeBytes gives for the content. */
  virtualSizeBytes?: number;
}

/**
 * Makes an ext4 file system with a directory's content in the file `imagePath`, which must
 * exist and is overwritten: owners, permissions, mtimes, symbolic and hard links, devices, extended attributes,
 * holes. Its bytes depend on these and on the content, not on when or where the directory was
 * read, copied or created. After an error the file's content is useless.
 * Errors: ERR_LIB_MISSING, ERR_EXT4_SOURCE, ERR_EXT4_SIZE, ERR_EXT4_FULL, ERR_EXT4_LIBRARY.
 */
export async function buildExt4(options: BuildExt4Options): Promise<{ virtualSizeBytes: number }> {
  const { rootfs, imagePath, signal } = options;
  const size = await scanTree(rootfs, signal);
  const virtualSizeBytes = options.virtualSizeBytes ?? defaultVirtualSizeBytes(size);
  const inodeCount = defaultInodeCount(virtualSizeBytes, size.entries);
  await createExt4(imagePath, { virtualSizeBytes, inodeCount, signal });
  await addTree(options);
  return { virtualSizeBytes };
}

export interface CreateExt4Options {
  virtualSizeBytes: number;
  /** At least this many; by default what defaultInodeCount gives for the size. */
  inodeCount?: number | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Makes an empty file system in the file `imagePath`, which is overwritten. Errors: those of formatExt4.
 */
export async function createExt4(imagePath: string, options: CreateExt4Options): Promise<void> {
  const { virtualSizeBytes, signal } = options;
  const inodeCount = options.inodeCount ?? defaultInodeCount(virtualSizeBytes);
  await formatExt4(imagePath, { virtualSizeBytes, inodeCount, signal });
}

/**
 * Copies a directory over what a file system made by createExt4 has: new files are added, present
 * ones replaced, directories merged; nothing is removed.
 * Errors: as buildExt4, and ERR_EXT4_CONFLICT where a directory would become something else.
 */
export async function addTree(options: AddTreeOptions): Promise<void> {
  const { rootfs, imagePath, onProgress, signal } = options;
  using file = new ImageFile(imagePath);
  const image = new StagedImage(file);
  const filesystem = new Ext2Filesystem(image, imagePath, EXT4_EPOCH_SECONDS);
  try {
    await new TreeWriter(filesystem, { image, onProgress, signal }).write(rootfs);
    filesystem.close();
  } catch (error) {
    filesystem.abandon();
    throw error;
  }
  checkClock(image, imagePath);
  image.commit();
}

/** The superblock's time of last write is what a library with another layout would get wrong. */
function checkClock(image: StagedImage, imagePath: string): void {
  const writeTime = Buffer.alloc(4);
  image.read(1024 + 48, writeTime);
  if (writeTime.readUInt32LE(0) === EXT4_EPOCH_SECONDS) return;
  throw new ReplaybdError(
    'ERR_EXT4_LIBRARY',
    `${imagePath}: libext2fs dated the file system ${writeTime.readUInt32LE(0)}, expected ` +
      `${EXT4_EPOCH_SECONDS}; the image would not be reproducible. Versions 1.43 to 1.47 work.`,
  );
}
