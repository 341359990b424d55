import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { EXT4_BLOCK_BYTES } from '../../native/ext2fs.ts';
import { ext4Limits } from '../base/limits.ts';
import { buildImage, type BuiltImage } from '../image/build/image.ts';
import { layoutDeviceConfig, registryDeviceConfig } from '../image/build/device-config.ts';
import { addToLayout, isLayout } from '../image/build/oci-layout.ts';
import { pushImage } from '../image/build/push-image.ts';
import type { ZFileAlgorithm } from '../image/zfile/format.ts';
import type { Platform } from '../registry/manifest.ts';
import { collectWords, platform, positiveNumber, wholeNumber } from './arguments.ts';
import { STANDARD_OUTPUT, writeOutput } from './output.ts';
import { addRegistryOptions, withRegistry, type RegistryFlags } from './registry-options.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

interface BuildFlags extends RegistryFlags {
  rootfs: string[];
  tag: string;
  layout?: string;
  push?: string;
  algorithm: ZFileAlgorithm;
  bs: number;
  virtualSize?: number;
  inodes?: number;
  platform?: Platform;
  entrypoint?: string[];
  cmd?: string[];
  env?: string[];
  json?: boolean;
}

interface ConfigFlags extends RegistryFlags {
  output?: string;
}

/** `replaybd image build` and `replaybd image config`. */
export function register(program: Command): void {
  const image = program.command('image').description('make overlaybd images and describe them');
  addRegistryOptions(image.command('build'))
    .description('make an overlaybd image of directories, without a mount or a daemon')
    .requiredOption(
      '--rootfs <dir>',
      'content; repeat it for more layers, bottom first',
      collectWords,
    )
    .option('--tag <name>', 'name of the image in the layout', 'latest')
    .option('--layout <dir>', 'write an OCI image layout, or add to it')
    .option('--push <reference>', 'push to a registry (http:// in front for one without TLS)')
    .addOption(
      new Option('--algorithm <name>', 'compression').choices(['lz4', 'zstd']).default('lz4'),
    )
    .option('--bs <KiB>', 'compressed block: 4, 8, 16, 32 or 64', wholeNumber(4, 64), 4)
    .option(
      '--virtual-size <GiB>',
      'size of the disk (default: what the content needs)',
      positiveNumber,
    )
    .option(
      '--inodes <n>',
      'files there is room for (default: one for 16 KiB of the disk, or what they need)',
      wholeNumber(1, ext4Limits.inodesMax),
    )
    .option('--platform <os/arch>', "platform (default: this machine's)", platform)
    .option('--entrypoint <word>', 'repeat it for more words', collectWords)
    .option('--cmd <word>', 'repeat it for more words', collectWords)
    .option('--env <NAME=value>', 'repeat it for more', collectWords)
    .option('--json', 'print the result as JSON')
    .action(build);
  addRegistryOptions(image.command('config'))
    .description("write overlaybd's config.v1.json of an image")
    .argument('<image>', 'oci:DIR[:TAG], a layout folder, or a registry reference')
    .option('-o, --output <file>', 'write to a file instead of standard output')
    .action(config);
}

async function build(flags: BuildFlags, command: Command): Promise<void> {
  if (flags.layout === undefined && flags.push === undefined) {
    command.error('error: say where the image goes: --layout DIR, --push REF or both');
  }
  const progress = new ProgressLine();
  const work = async (workFolder: string, signal: AbortSignal) => {
    const image = await buildImage({
      rootfs: flags.rootfs,
      workFolder,
      algorithm: flags.algorithm,
      blockBytes: flags.bs * 1024,
      virtualSizeBytes:
        flags.virtualSize === undefined ? undefined : wholeBlocks(flags.virtualSize),
      inodeCount: flags.inodes,
      platform: flags.platform,
      process: { entrypoint: flags.entrypoint, cmd: flags.cmd, env: flags.env },
      onProgress: ({ phase, layer, bytes }) =>
        progress.show(`layer ${layer + 1}: ${phase} ${formatBytes(bytes)}`),
      signal,
    });
    const { push } = flags;
    if (push !== undefined) {
      await withRegistry(flags, (client) => pushImage(client, push, image, signal), signal);
    }
    if (flags.layout !== undefined) await addToLayout(flags.layout, image, flags.tag);
    return image;
  };
  const image = await withWorkFolder(flags.layout, work).finally(() => progress.clear());
  printResult(image, flags.json === true);
}

async function config(image: string, flags: ConfigFlags): Promise<void> {
  const layout = parseLayout(image);
  const found =
    layout === null
      ? await withRegistry(flags, (client) => registryDeviceConfig(client, image))
      : await layoutDeviceConfig(layout.folder, layout.tag);
  const text = `${JSON.stringify(found, null, 2)}\n`;
  await writeOutput(flags.output ?? STANDARD_OUTPUT, Buffer.from(text));
}

/** Work happens beside the target, and leaves nothing there when it fails or is interrupted. */
async function withWorkFolder<T>(
  layout: string | undefined,
  work: (folder: string, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  return interruptible(async (signal) => {
    if (layout !== undefined) await mkdir(layout, { recursive: true });
    const folder = await mkdtemp(join(layout ?? tmpdir(), '.replaybd-build-'));
    try {
      return await work(folder, signal);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
}

function printResult(image: BuiltImage, asJson: boolean): void {
  const { digest } = image.manifest.descriptor;
  const layers = image.layers.map(({ digest, sizeBytes, dataBytes, uuid }) => {
    return { digest, sizeBytes, dataBytes, uuid };
  });
  if (asJson) {
    const { virtualSizeBytes } = image;
    process.stdout.write(`${JSON.stringify({ manifest: digest, virtualSizeBytes, layers })}\n`);
    return;
  }
  for (const layer of layers) {
    process.stdout.write(
      `layer ${layer.digest} ${formatBytes(layer.sizeBytes)} (${formatBytes(layer.dataBytes)} of data)\n`,
    );
  }
  process.stdout.write(`image ${digest}\n`);
}

/** `oci:DIR[:TAG]`, as skopeo writes it, or a folder that is a layout. */
function parseLayout(image: string): { folder: string; tag: string | null } | null {
  if (!image.startsWith('oci:')) return isLayout(image) ? { folder: image, tag: null } : null;
  const [, folder = '', tag = null] = /^oci:([^:]*)(?::(.+))?$/.exec(image) ?? [];
  return { folder, tag };
}

/** A disk of at least so many GiB: a file system has whole blocks. */
function wholeBlocks(gib: number): number {
  return Math.ceil((gib * 2 ** 30) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES;
}
