import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { truncateSync } from 'node:fs';
import { codeOf, ReplaybdError } from '../../base/errors.ts';
import { ext4Limits } from '../../base/limits.ts';
import { EXT4_BLOCK_BYTES, EXT4_INODE_BYTES } from '../../../native/ext2fs.ts';

/** The UUID overlaybd gives every ext4 it makes; a fixed one keeps images reproducible. */
export const EXT4_UUID = 'bdf7bb2e-c231-43ce-87c2-299792458ef5';

/** The date of everything that has no date of its own. Zero would mean "not set". */
export const EXT4_EPOCH_SECONDS = 1;

/** No journal: an image is written once, and its guests keep their changes in an upper layer.
 * Checksums let groups that are still empty go without stored bitmaps, so that 64 GiB of nothing
 * cost 300 KiB. One backup of the superblock, in group 1. */
const FEATURES = [
  'ext_attr',
  'dir_index',
  'filetype',
  'extent',
  '64bit',
  'flex_bg',
  'sparse_super2',
  'large_file',
  'huge_file',
  'dir_nlink',
  'extra_isize',
  'metadata_csum',
];

export interface FormatOptions {
  virtualSizeBytes: number;
  /** At least this many inodes. */
  inodeCount: number;
  signal?: AbortSignal | undefined;
}

/**
 * Makes an empty ext4 file system in the empty file `path`, which grows to `virtualSizeBytes` and
 * stays sparse. Equal options give equal bytes.
 * Errors: ERR_EXT4_SIZE, ERR_EXT4_FORMAT; ERR_LIB_MISSING without mke2fs.
 */
export async function formatExt4(path: string, options: FormatOptions): Promise<void> {
  checkSize(options.virtualSizeBytes);
  truncateSync(path, 0);
  truncateSync(path, options.virtualSizeBytes);
  // Discarding a file punches holes, which read as zeros: inode tables need not be written, and are
  // marked as zeroed, so that no kernel writes them later either.
  const extended = [
    `hash_seed=${EXT4_UUID}`,
    'num_backup_sb=1',
    'root_owner=0:0',
    'discard',
    'lazy_itable_init=1',
  ];
  await runMke2fs(
    [
      ...['-q', '-F', '-b', String(EXT4_BLOCK_BYTES), '-I', String(EXT4_INODE_BYTES)],
      ...['-m', '0', '-N', String(options.inodeCount), '-U', EXT4_UUID],
      ...['-O', ['none', ...FEATURES].join(','), '-E', extended.join(','), path],
      String(options.virtualSizeBytes / EXT4_BLOCK_BYTES),
    ],
    options.signal,
  );
}

function checkSize(bytes: number): void {
  const { virtualSizeBytesMin: min, virtualSizeBytesMax: max } = ext4Limits;
  if (bytes >= min && bytes <= max && bytes % EXT4_BLOCK_BYTES === 0) return;
  throw new ReplaybdError(
    'ERR_EXT4_SIZE',
    `ext4: a virtual size of ${bytes} bytes: expected a multiple of ${EXT4_BLOCK_BYTES} ` +
      `from ${min} to ${max}.`,
  );
}

async function runMke2fs(parameters: string[], signal?: AbortSignal): Promise<void> {
  const child = spawn('mke2fs', parameters, {
    // The machine's mke2fs.conf must not choose features.
    env: {
      PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`,
      MKE2FS_CONFIG: '/dev/null',
      E2FSPROGS_FAKE_TIME: String(EXT4_EPOCH_SECONDS),
      SOURCE_DATE_EPOCH: String(EXT4_EPOCH_SECONDS),
    },
    stdio: ['ignore', 'ignore', 'pipe'],
    ...(signal === undefined ? {} : { signal }),
  });
  let complaint = '';
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  try {
    const [exitCode] = (await once(child, 'close')) as [number | null];
    if (exitCode === 0) return;
    throw new ReplaybdError(
      'ERR_EXT4_FORMAT',
      `mke2fs: exit code ${exitCode}: ${complaint.trim()}`,
    );
  } catch (error) {
    signal?.throwIfAborted();
    if (codeOf(error) !== 'ENOENT') throw error;
    throw new ReplaybdError(
      'ERR_LIB_MISSING',
      'mke2fs: not found; it formats ext4. Install it: Debian and Ubuntu have it in e2fsprogs.',
      { cause: error },
    );
  }
}
