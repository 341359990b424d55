import { ReplaybdError } from '../../base/errors.ts';
import { BlockingThread } from '../../../native/blocking-thread.ts';
import { mountFlags } from '../../../native/mount.ts';

export type FilesystemType = 'ext4' | 'erofs' | 'xfs';

/** Bytes from the start of a disk that hold every superblock looked for. */
const HEAD_BYTES = 4096;
const SUPERBLOCK_AT = 1024;
const EXT4_MAGIC_AT = SUPERBLOCK_AT + 56;
const EXT4_MAGIC = 0xef53;
const EROFS_MAGIC = 0xe0f5e1e2;
const XFS_MAGIC = 'XFSB';

/** Read-only mounts must not replay a journal: that would write. */
const READ_ONLY_DATA: Record<FilesystemType, string> = {
  ext4: 'noload',
  erofs: '',
  xfs: 'norecovery,nouuid',
};

/** Which file system a disk's first bytes belong to; null for none that is known. */
export function detectFilesystem(head: Uint8Array): FilesystemType | null {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.length >= XFS_MAGIC.length && bytes.toString('latin1', 0, 4) === XFS_MAGIC)
    return 'xfs';
  if (bytes.length < EXT4_MAGIC_AT + 2) return null;
  if (bytes.readUInt32LE(SUPERBLOCK_AT) === EROFS_MAGIC) return 'erofs';
  return bytes.readUInt16LE(EXT4_MAGIC_AT) === EXT4_MAGIC ? 'ext4' : null;
}

export interface MountOptions {
  readOnly: boolean;
  /** Where the blocking calls run; a thread of its own by default. */
  thread?: BlockingThread;
}

/**
 * Mounts the file system of a block device, or an erofs in a plain file, on the directory `target`.
 * Returns what it is. Errors: ERR_FILESYSTEM_UNKNOWN, or the errno of the call.
 */
export async function mountFilesystem(
  devicePath: string,
  target: string,
  options: MountOptions,
): Promise<FilesystemType> {
  const { readOnly, thread = new BlockingThread() } = options;
  try {
    const type = detectFilesystem(await thread.call('readHead', devicePath, HEAD_BYTES));
    if (type === null) {
      throw new ReplaybdError(
        'ERR_FILESYSTEM_UNKNOWN',
        `${devicePath}: expected the magic number of ext4, erofs or xfs, found none. ` +
          'Attach the device without mounting it and look at it with blkid.',
        { errno: 'EINVAL' },
      );
    }
    const flags = readOnly ? mountFlags.readOnly : 0;
    const data = readOnly ? READ_ONLY_DATA[type] : '';
    await thread.call('mount', { source: devicePath, target, type, flags, data });
    return type;
  } finally {
    if (options.thread === undefined) thread.close();
  }
}
