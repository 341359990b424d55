import type { Command } from 'commander';
import { EXT4_BLOCK_BYTES } from '../../native/ext2fs.ts';
import { ReplaybdError } from '../base/errors.ts';
import { readImageConfig } from '../image/config.ts';
import { openInput } from '../image/input.ts';
import { resizeImage } from '../image/tools/resize.ts';
import { positiveNumber } from './arguments.ts';
import { withRemoteOpener } from './input.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, interruptible } from './terminal.ts';

interface ResizeFlags extends Omit<RuntimeFlags, 'config'> {
  /** The image's, as with the original's tool, and not overlaybd.json. */
  config: string;
  serviceConfigPath?: string;
  size: number;
  json?: boolean;
}

const GIB = 2 ** 30;

/** `replaybd resize`. */
export function register(program: Command): void {
  const command = program
    .command('resize')
    .description('grow or shrink the disk of an image with a writable layer, and the ext4 on it')
    .requiredOption('--size <GiB>', 'size of the disk', positiveNumber)
    .option('--service-config-path <file>', 'overlaybd.json')
    .option('--json', 'print the result as JSON');
  addRuntimeOptions(command).action(run);
  const config = command.options.find((option) => option.attributeName() === 'config');
  if (config === undefined) return;
  config.description = "the image's config.v1.json";
  config.makeOptionMandatory();
}

async function run({ config, serviceConfigPath, size, ...flags }: ResizeFlags): Promise<void> {
  const { upper } = await readImageConfig(config);
  if (upper.data === '' || upper.index === '') {
    throw new ReplaybdError(
      'ERR_RESIZE_UPPER',
      `${config}: expected an image with a writable layer (upper.data and upper.index), found ` +
        'none. Create one with replaybd create.',
    );
  }
  const runtimeFlags =
    serviceConfigPath === undefined ? flags : { ...flags, config: serviceConfigPath };
  const sizeBytes = Math.round((size * GIB) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
  const resized = await interruptible((signal) =>
    withRemoteOpener(
      runtimeFlags,
      (openRemote) => {
        const openImage = () => openInput([config], openRemote);
        return resizeImage({ upper, sizeBytes, openImage, signal });
      },
      signal,
    ),
  );
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(resized)}\n`);
    return;
  }
  if (resized.finishedEarlier) process.stdout.write('finished a resize that was interrupted\n');
  process.stdout.write(
    `${upper.data}: disk ${formatBytes(resized.virtualSizeBytes)}, was ` +
      `${formatBytes(resized.previousBytes)}; ${formatBytes(resized.changedBytes)} written\n`,
  );
}
