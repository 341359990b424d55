import { InvalidArgumentError, type Command } from 'commander';
import { applyToDevice } from '../device/apply/apply-to-device.ts';
import { makeFileSystem, writeRaw, type WriteDiskOptions } from '../device/apply/write-disk.ts';
import type { WritableDevice } from '../device/writable-device.ts';
import { isChecksum } from '../image/tar/checksum.ts';
import { checkInput } from '../image/tar/input.ts';
import { withWritableImage } from './input.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

interface ApplyFlags extends RuntimeFlags {
  mkfs?: boolean;
  raw?: boolean;
  checksum?: string;
  json?: boolean;
}

interface Applied {
  /** Of the tar; null for a raw disk. */
  entries: number | null;
  bytes: number;
}

/** `replaybd apply`. */
export function register(program: Command): void {
  const command = program
    .command('apply')
    .description("apply an OCI layer's tar to the ext4 file system of an image's writable layer")
    .argument('<input>', 'tar (plain, gzip, zstd) in a file or FIFO; - for standard input')
    .argument('<config>', 'config.v1.json that names lowers and the writable layer')
    .option('--mkfs', 'make an empty file system first, in place of what is there')
    .option('--raw', "the input is a disk's bytes, to be written as they are")
    .option('--checksum <digest>', 'sha256:... of the uncompressed tar', checksum)
    .option('--json', 'print the result as JSON');
  addRuntimeOptions(command).action(run);
}

async function run(
  input: string,
  configPath: string,
  flags: ApplyFlags,
  command: Command,
): Promise<void> {
  if (flags.raw === true && (flags.mkfs === true || flags.checksum !== undefined)) {
    command.error('error: --raw goes with neither --mkfs nor --checksum');
  }
  await checkInput(input);
  const startedMs = performance.now();
  const progress = new ProgressLine();
  const { entries, bytes } = await interruptible((signal) =>
    withWritableImage(
      configPath,
      flags,
      async ({ device }) => {
        const applied = await apply(device, input, flags, { progress, signal });
        await device.writer.flush();
        return applied;
      },
      signal,
    ),
  ).finally(() => progress.clear());
  const seconds = (performance.now() - startedMs) / 1000;
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ entries, bytes, seconds })}\n`);
    return;
  }
  const count = entries === null ? '' : `${entries} entries, `;
  process.stdout.write(`applied ${count}${formatBytes(bytes)} in ${seconds.toFixed(1)} s\n`);
}

async function apply(
  device: WritableDevice,
  input: string,
  flags: ApplyFlags,
  { progress, signal }: { progress: ProgressLine; signal: AbortSignal },
): Promise<Applied> {
  const onProgress: WriteDiskOptions['onProgress'] = (bytes) => progress.show(formatBytes(bytes));
  if (flags.raw === true) {
    return { entries: null, bytes: await writeRaw(device, input, { onProgress, signal }) };
  }
  if (flags.mkfs === true) await makeFileSystem(device, { signal });
  return await applyToDevice(device, {
    input,
    checksum: flags.checksum,
    onProgress: ({ entries, bytes }) => progress.show(`${entries} entries, ${formatBytes(bytes)}`),
    signal,
  });
}

function checksum(text: string): string {
  if (isChecksum(text)) return text;
  throw new InvalidArgumentError('Expected sha256: and 64 hexadecimal digits.');
}
