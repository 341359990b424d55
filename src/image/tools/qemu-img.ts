import { spawn } from 'node:child_process';
import { resolve } from 'node:path';
import { codeOf, ReplaybdError } from '../../base/errors.ts';

/** Of what qemu-img prints; the rest is cut off. */
const OUTPUT_BYTES_MAX = 64 * 1024;

export interface ProgramOptions {
  signal?: AbortSignal | undefined;
}

/**
 * Turns a qcow2 image (version 2 or 3) into a raw file, its zero clusters and unallocated ones into
 * holes. An image that leads to other files is refused: whoever made it would choose which of ours
 * are read. Errors: ERR_QEMU_IMG, ERR_QCOW2.
 */
export async function qcow2ToRaw(
  source: string,
  target: string,
  options: ProgramOptions = {},
): Promise<void> {
  const image = resolve(source);
  const info = await qemuImg(['info', '--output=json', '-f', 'qcow2', image], options);
  refuseOtherFiles(JSON.parse(info), source);
  await qemuImg(['convert', '-f', 'qcow2', '-O', 'raw', image, resolve(target)], options);
}

/** Turns a raw file into a qcow2 image (version 3). ERR_QEMU_IMG. */
export async function rawToQcow2(
  source: string,
  target: string,
  options: ProgramOptions = {},
): Promise<void> {
  await qemuImg(['convert', '-f', 'raw', '-O', 'qcow2', resolve(source), resolve(target)], options);
}

function refuseOtherFiles(info: unknown, source: string): void {
  const text = JSON.stringify(info);
  const found = ['backing-filename', 'full-backing-filename', 'data-file'].find((key) =>
    text.includes(`"${key}":`),
  );
  if (found === undefined) return;
  throw new ReplaybdError(
    'ERR_QCOW2',
    `${source}: expected an image that holds all its data, found one with a ${found}. ` +
      'Flatten it with qemu-img convert first.',
  );
}

/** Standard output of a run that succeeds. */
function qemuImg(args: readonly string[], { signal }: ProgramOptions): Promise<string> {
  return new Promise((resolveRun, reject) => {
    const child = spawn('qemu-img', args, { stdio: ['ignore', 'pipe', 'pipe'], signal });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout = (stdout + text).slice(0, OUTPUT_BYTES_MAX);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(0, OUTPUT_BYTES_MAX);
    });
    // When it is aborted, 'error' comes at once, but its files are in use until 'close'.
    let failure: Error | null = null;
    child.on('error', (error) => {
      failure = error;
    });
    child.on('close', (code) => {
      if (failure === null && code === 0) resolveRun(stdout);
      else reject(signal?.aborted === true ? signal.reason : runError(args, failure, stderr));
    });
  });
}

function runError(args: readonly string[], failure: Error | null, stderr: string): ReplaybdError {
  if (codeOf(failure) === 'ENOENT') {
    return new ReplaybdError(
      'ERR_QEMU_IMG',
      'qemu-img: not found, and qcow2 images need it. Install qemu-utils, or use a raw image.',
    );
  }
  const said = failure?.message ?? stderr.trim().replaceAll(/\s+/g, ' ');
  return new ReplaybdError('ERR_QEMU_IMG', `qemu-img ${args[0]} failed: ${said}`);
}
