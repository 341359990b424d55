import { resolve } from 'node:path';
import { ReplaybdError } from '../../base/errors.ts';
import { programError, runProgram, type ProgramOptions } from './run-program.ts';

/** Keys with which an image's description names other files, at any depth. */
const OTHER_FILES = ['backing-filename', 'full-backing-filename', 'data-file'];
const DEPTH_MAX = 16;

/**
 * Turns a qcow2 image (version 2 or 3) into a raw file, its zero clusters and unallocated ones into
 * holes. An image that leads to other files is refused: whoever made it would choose which of ours
 * are read. Errors: ERR_PROGRAM_MISSING, ERR_PROGRAM, ERR_QCOW2.
 */
export async function qcow2ToRaw(
  source: string,
  target: string,
  options: ProgramOptions = {},
): Promise<void> {
  const image = resolve(source);
  const info = await qemuImg(source, ['info', '--output=json', '-f', 'qcow2', image], options);
  const found = otherFileOf(JSON.parse(info), DEPTH_MAX);
  if (found !== null) {
    throw new ReplaybdError(
      'ERR_QCOW2',
      `${source}: expected an image that holds all its data, found one with a ${found}. ` +
        'Flatten it with qemu-img convert first.',
    );
  }
  const args = ['convert', '-f', 'qcow2', '-O', 'raw', image, resolve(target)];
  await qemuImg(source, args, options);
}

/** Turns a raw file into a qcow2 image (version 3). Errors: ERR_PROGRAM_MISSING, ERR_PROGRAM. */
export async function rawToQcow2(
  source: string,
  target: string,
  options: ProgramOptions = {},
): Promise<void> {
  const args = ['convert', '-f', 'raw', '-O', 'qcow2', resolve(source), resolve(target)];
  await qemuImg(target, args, options);
}

/** The key of another file that a description names, or null. */
function otherFileOf(value: unknown, depth: number): string | null {
  if (typeof value !== 'object' || value === null) return null;
  if (depth === 0) return 'description of unusual depth';
  for (const [key, inner] of Object.entries(value)) {
    if (OTHER_FILES.includes(key)) return key;
    const found = otherFileOf(inner, depth - 1);
    if (found !== null) return found;
  }
  return null;
}

/** Standard output of a run that succeeds. */
async function qemuImg(
  subject: string,
  args: readonly string[],
  options: ProgramOptions,
): Promise<string> {
  const hint = 'It reads and writes qcow2: install qemu-utils, or use a raw image.';
  const outcome = await runProgram('qemu-img', args, hint, options);
  if (outcome.exitCode === 0) return outcome.stdout;
  throw programError('qemu-img', subject, outcome);
}
