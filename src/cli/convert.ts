import { mkdir } from 'node:fs/promises';
import { Option, type Command } from 'commander';
import { EXT4_BLOCK_BYTES } from '../../native/ext2fs.ts';
import { DEFAULT_BASE_LAYER } from '../image/convert/base-layer.ts';
import { convert, type ConvertedRoot } from '../image/convert/convert.ts';
import { openSource, openTarget, parseImageName } from '../image/convert/names.ts';
import { platformText } from '../image/convert/platforms.ts';
import { dryTarget } from '../image/convert/target.ts';
import type { ZFileAlgorithm } from '../image/zfile/format.ts';
import type { Platform } from '../registry/manifest.ts';
import { platform, positiveNumber, wholeNumber } from './arguments.ts';
import { ConvertReport } from './convert-report.ts';
import { addRegistryOptions, withRegistry, type RegistryFlags } from './registry-options.ts';
import { interruptible } from './terminal.ts';

interface ConvertFlags extends RegistryFlags {
  oci?: boolean;
  referrer?: boolean;
  platform: Platform | 'all';
  vsize: number;
  mkfs: boolean;
  baseLayer: string;
  concurrency: number;
  cache?: string;
  cacheSize: number;
  dryRun?: boolean;
  algorithm: ZFileAlgorithm;
  bs: number;
  json?: boolean;
}

const GIB = 2 ** 30;

/** `replaybd convert`. */
export function register(program: Command): void {
  addRegistryOptions(program.command('convert'))
    .description('convert an OCI or Docker image to an overlaybd image')
    .argument('<source>', 'a registry reference, oci:DIR[:TAG] or docker-archive:FILE[:REFERENCE]')
    .argument('<target>', 'a registry reference or oci:DIR[:TAG]')
    .option('--oci', "OCI's media types instead of Docker's (always in a layout)")
    .option('--referrer', 'refer to the source instead of taking a tag; implies --oci')
    .option('--platform <all|os/arch>', 'images of an index to convert', platformOrAll, 'all')
    .addOption(new Option('--fstype <name>', 'file system').choices(['ext4']).default('ext4'))
    .option('--vsize <GiB>', 'size of the disk', positiveNumber, 64)
    .addOption(new Option('--mkfs', 'make the file system in the first layer').default(true))
    .option('--no-mkfs', 'put a base layer with the file system below all layers')
    .option('--base-layer <file>', 'the base layer of --no-mkfs', DEFAULT_BASE_LAYER)
    .option('--concurrency <n>', 'images of an index converted at a time', wholeNumber(1, 64), 2)
    .option('--cache <dir>', 'keep converted layers there for later runs')
    .option('--cache-size <GiB>', 'room for the cache', positiveNumber, 20)
    .option('--dry-run', 'convert, but write nothing to the target')
    .addOption(
      new Option('--algorithm <name>', 'compression').choices(['lz4', 'zstd']).default('lz4'),
    )
    .option('--bs <KiB>', 'compressed block: 4, 8, 16, 32 or 64', wholeNumber(4, 64), 4)
    .option('--json', 'print the result as JSON')
    .action(run);
}

async function run(source: string, target: string, flags: ConvertFlags): Promise<void> {
  const report = new ConvertReport();
  const from = parseImageName(source);
  const to = parseImageName(target);
  const { cache, cacheSize, dryRun = false } = flags;
  const isReferrer = flags.referrer === true;
  const isOci = flags.oci === true || isReferrer || to.kind === 'layout';
  const work = async (signal: AbortSignal): Promise<ConvertedRoot> =>
    withRegistry(
      flags,
      async (client) => {
        const opened = openTarget(to, client, isReferrer);
        if (to.kind === 'layout' && !dryRun) await mkdir(to.folder, { recursive: true });
        return convert({
          source: await openSource(from, client),
          target: dryRun ? dryTarget() : opened,
          settings: {
            virtualSizeBytes: Math.ceil((flags.vsize * GIB) / EXT4_BLOCK_BYTES) * EXT4_BLOCK_BYTES,
            algorithm: flags.algorithm,
            blockBytes: flags.bs * 1024,
          },
          style: { isOci, isReferrer },
          platform: flags.platform,
          baseLayerPath: flags.mkfs ? null : flags.baseLayer,
          concurrency: flags.concurrency,
          cache: cache === undefined ? null : { folder: cache, quotaBytes: cacheSize * GIB },
          workParent: to.kind === 'layout' && !dryRun ? to.folder : undefined,
          isDurable: to.kind === 'layout',
          progress: report,
          signal,
        });
      },
      signal,
    );
  const result = await interruptible(work).finally(() => report.clear());
  printResult(result, flags, report.elapsedSeconds);
}

function printResult(result: ConvertedRoot, flags: ConvertFlags, seconds: number): void {
  const { root, images, skipped } = result;
  const { digest, mediaType } = root.descriptor;
  const write = (text: string) => process.stdout.write(`${text}\n`);
  if (flags.json === true) {
    const described = images.map(({ platform, source, object, layers }) => ({
      platform: platformText(platform),
      source: source.digest,
      manifest: object.descriptor.digest,
      ...(flags.dryRun === true ? { content: object.manifest } : {}),
      layers,
    }));
    const left = skipped.map(({ descriptor, reason }) => ({ digest: descriptor.digest, reason }));
    write(JSON.stringify({ digest, mediaType, images: described, skipped: left, seconds }));
    return;
  }
  for (const { platform, object } of images) {
    write(`image ${object.descriptor.digest} ${platformText(platform)}`);
  }
  for (const { descriptor, reason } of skipped) write(`skipped ${descriptor.digest}: ${reason}`);
  if (root.descriptor.digest !== images[0]?.object.descriptor.digest) write(`index ${digest}`);
}

function platformOrAll(text: string): Platform | 'all' {
  return text === 'all' ? 'all' : platform(text);
}
