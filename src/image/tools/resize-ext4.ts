import { readSync } from 'node:fs';
import { ReplaybdError } from '../../base/errors.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import type { DiskFile } from '../build/changed-extents.ts';
import { programError, runProgram, type ProgramOptions } from './run-program.ts';

const SUPERBLOCK_OFFSET = 1024;
const SUPERBLOCK_BYTES = 1024;
const MAGIC_OFFSET = 56;
const MAGIC = 0xef53;
const HINT = 'It resizes ext4: install e2fsprogs.';
/** e2fsck: nothing found, or all of it repaired. */
const CLEAN = 0;
const REPAIRED = 1;

/**
 * Makes the ext4 in a disk's file as large as `sizeBytes`: checks it, as an interrupted guest may
 * have left it, resizes it, and checks it again. Of a disk that a failure leaves, nothing is said.
 * Errors: ERR_RESIZE_EXT4 when there is no ext4, ERR_PROGRAM_MISSING, ERR_PROGRAM.
 */
export async function resizeExt4(
  disk: DiskFile,
  name: string,
  sizeBytes: number,
  options: ProgramOptions = {},
): Promise<void> {
  if (!isExt4(disk)) {
    throw new ReplaybdError(
      'ERR_RESIZE_EXT4',
      `${name}: expected a disk that is one ext4 file system, found none`,
    );
  }
  await run(name, 'e2fsck', ['-f', '-y', disk.path], [CLEAN, REPAIRED], options);
  const size = `${sizeBytes / SECTOR_BYTES}s`;
  await run(name, 'resize2fs', [disk.path, size], [0], options);
  await run(name, 'e2fsck', ['-f', '-n', disk.path], [CLEAN], options);
}

function isExt4({ fd }: DiskFile): boolean {
  const superblock = Buffer.alloc(SUPERBLOCK_BYTES);
  const count = readSync(fd, superblock, 0, SUPERBLOCK_BYTES, SUPERBLOCK_OFFSET);
  return count === SUPERBLOCK_BYTES && superblock.readUInt16LE(MAGIC_OFFSET) === MAGIC;
}

async function run(
  name: string,
  program: string,
  args: readonly string[],
  accepted: readonly (number | null)[],
  options: ProgramOptions,
): Promise<void> {
  const outcome = await runProgram(program, args, HINT, options);
  if (!accepted.includes(outcome.exitCode)) throw programError(program, name, outcome);
}
