import { Option, type Command } from 'commander';
import { lsmtLimits } from '../base/limits.ts';
import type { LayerPacking } from '../image/layer-writer.ts';
import type { LayerOutput, LayerOutputOptions } from '../image/tools/layer-output.ts';
import type { Uploaded } from '../image/tools/upload.ts';
import type { ZFileAlgorithm } from '../image/zfile/format.ts';
import type { ZFileWriterOptions } from '../image/zfile/writer.ts';
import { wholeNumber } from './arguments.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

/** The flags of commands that compress. */
export interface CodingFlags {
  algorithm: ZFileAlgorithm;
  bs: string;
  compressThreads?: number;
}

/** The flags of commands that write a file. */
export interface OutputFlags {
  tar?: boolean;
  force?: boolean;
  sync: boolean;
  json?: boolean;
}

export type LayerFlags = CodingFlags & OutputFlags;

const THREADS_MAX = 64;
/** Index entries that are worth a word. */
const ENTRIES_WARNED = lsmtLimits.entriesWrittenMax * 0.8;

export function addCodingOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--algorithm <name>', 'compression').choices(['lz4', 'zstd']).default('lz4'),
    )
    .addOption(
      new Option('--bs <KiB>', 'compressed block')
        .choices(['4', '8', '16', '32', '64'])
        .default('4'),
    )
    .option(
      '--threads, --compress-threads <number>',
      'threads that compress (default: one a processor, up to 4)',
      wholeNumber(1, THREADS_MAX),
    );
}

export function addOutputOptions(command: Command): Command {
  return command
    .option('-t, --tar', 'wrap the result in a tar, as registries store layers')
    .option('-f, --force', 'replace the file if it is there already')
    .option('--no-sync', 'leave it to the system when the bytes reach the disk')
    .option('--json', 'print the result as JSON');
}

export function codingOf(flags: CodingFlags): ZFileWriterOptions {
  const { algorithm, bs, compressThreads } = flags;
  const coding = { algorithm, blockBytes: Number(bs) * 1024 };
  return compressThreads === undefined ? coding : { ...coding, threads: compressThreads };
}

/** Runs what writes a layer, with progress and Ctrl-C, and warns of what came of it. */
export async function writeLayerFor(
  flags: OutputFlags,
  path: string,
  packing: LayerPacking,
  write: (options: LayerOutputOptions & { signal: AbortSignal }) => Promise<LayerOutput>,
): Promise<LayerOutput> {
  const progress = new ProgressLine();
  const onProgress = (bytes: number) => progress.show(`${formatBytes(bytes)} of data`);
  const output = await interruptible((signal) =>
    write({
      path,
      packing,
      replace: flags.force ?? false,
      isDurable: flags.sync,
      onProgress,
      signal,
    }),
  ).finally(() => progress.clear());
  warnOf(output);
  return output;
}

/** Says what was made, and under which digest a registry has it. */
export function printLayer(output: LayerOutput, uploaded: Uploaded | null, asJson: boolean): void {
  const { path, sizeBytes, virtualSizeBytes, entries, dataBytes } = output;
  if (asJson) {
    process.stdout.write(`${JSON.stringify({ ...output, ...uploaded })}\n`);
    return;
  }
  process.stdout.write(
    `${path}: ${formatBytes(sizeBytes)}, ${formatBytes(dataBytes)} of data in ${entries} entries, ` +
      `disk ${formatBytes(virtualSizeBytes)}\n`,
  );
  if (uploaded !== null) process.stdout.write(`${uploaded.digest} ${uploaded.outcome}\n`);
}

function warnOf({ path, entries, isReadableByOriginal }: LayerOutput): void {
  if (entries > ENTRIES_WARNED) {
    process.stderr.write(
      `replaybd: warning: ${path}: ${entries} index entries of the ` +
        `${lsmtLimits.entriesWrittenMax} that a layer may have\n`,
    );
  }
  if (!isReadableByOriginal) warnOfLongBlock(path);
}

/** Said where a block is stored in more than 64 KiB. */
export function warnOfLongBlock(path: string): void {
  process.stderr.write(
    `replaybd: warning: ${path}: overlaybd's own tools cannot read it, as 64 KiB of it do not ` +
      'compress; take a smaller --bs for them\n',
  );
}
