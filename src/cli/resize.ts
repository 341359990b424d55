import { Option, type Command } from 'commander';
import { EXT4_BLOCK_BYTES } from '../../native/ext2fs.ts';
import { ReplaybdError } from '../base/errors.ts';
import { controlRequest } from '../daemon/control-client.ts';
import type { ResizeFacts } from '../daemon/served-device.ts';
import { readImageConfig } from '../image/config.ts';
import { positiveNumber } from './arguments.ts';
import {
  deviceFlags,
  devicePath,
  findDevice,
  print,
  socketOption,
  type ControlFlags,
} from './control-socket.ts';
import { withRemoteOpener } from './input.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, interruptible } from './terminal.ts';

interface ResizeFlags extends Omit<RuntimeFlags, 'config'> {
  /** The image's, as with the original's tool, and not overlaybd.json. */
  config?: string;
  device?: string;
  socket?: string;
  serviceConfigPath?: string;
  size: number;
  json?: boolean;
}

const GIB = 2 ** 30;

/** `replaybd resize`. */
export function register(program: Command): void {
  const command = program
    .command('resize')
    .description(
      'grow or shrink the disk of an image with a writable layer, and the ext4 on it; or grow an ' +
        'attached device while it is used',
    )
    .requiredOption('--size <GiB>', 'size of the disk', positiveNumber)
    .addOption(
      new Option(
        '--device <name>',
        "an attached device's name or control socket; its file system is left to its guest",
      ).conflicts('config'),
    )
    .addOption(socketOption().conflicts('config'))
    .option('--service-config-path <file>', 'overlaybd.json')
    .option('--json', 'print the result as JSON');
  addRuntimeOptions(command).action(run);
  const config = command.options.find((option) => option.attributeName() === 'config');
  if (config !== undefined) config.description = "the image's config.v1.json";
}

async function run(all: ResizeFlags, command: Command): Promise<void> {
  const { config, device, socket, ...flags } = all;
  const sizeBytes = Math.round((flags.size * GIB) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
  if (device !== undefined || socket !== undefined) {
    return await resizeAttached(deviceFlags(device, all), sizeBytes);
  }
  if (config !== undefined) return await resizeConfigured(config, sizeBytes, flags);
  command.error('error: name an image with --config, or an attached device with --device');
}

async function resizeAttached(flags: ControlFlags, sizeBytes: number): Promise<void> {
  const { socketPath, device } = await findDevice(flags);
  const path = devicePath(device, 'resize');
  const facts = (await controlRequest(socketPath, 'POST', path, { sizeBytes })) as ResizeFacts;
  const { virtualSizeBytes, previousBytes } = facts;
  const sizes = `${formatBytes(virtualSizeBytes)}, was ${formatBytes(previousBytes)}`;
  print(flags, facts, `${device}: disk ${sizes}\n`);
}

async function resizeConfigured(
  config: string,
  sizeBytes: number,
  { serviceConfigPath, ...flags }: Omit<ResizeFlags, 'config' | 'device' | 'socket'>,
): Promise<void> {
  const { openInput } = await import('../image/input.ts');
  const { resizeImage } = await import('../image/tools/resize.ts');
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
