import type { Command } from 'commander';
import {
  digestOfDisk,
  exportToFile,
  exportToStream,
  type ExportOptions,
  type ExportSource,
} from '../image/export.ts';
import { openInput } from '../image/input.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

/** `replaybd export`. */
export function register(program: Command): void {
  program
    .command('export')
    .description("write an image's merged disk as a raw, sparse file")
    .argument(
      '<paths...>',
      'a config.v1.json or layer files, bottom first; then the file to write, or - for stdout',
    )
    .option('--sha256', 'write nothing; print the SHA-256 of the whole disk')
    .action(run);
}

async function run(paths: string[], flags: { sha256?: boolean }, command: Command): Promise<void> {
  const isDigest = flags.sha256 === true;
  const inputs = isDigest ? paths : paths.slice(0, -1);
  const target = paths.at(-1);
  if (inputs.length === 0 || target === undefined) {
    command.error('error: name the file to write, "-" for standard output, or give --sha256');
  }
  const input = await openInput(inputs);
  const progress = new ProgressLine();
  try {
    await interruptible(async (signal) => {
      const total = formatBytes(input.source.virtualSizeBytes);
      const onProgress = (done: number) => progress.show(`${formatBytes(done)} of ${total}`);
      await write(input.source, isDigest ? null : target, { onProgress, signal });
    });
  } finally {
    progress.clear();
    await input.close();
  }
}

async function write(
  source: ExportSource,
  target: string | null,
  options: ExportOptions,
): Promise<void> {
  if (target === null) process.stdout.write(`${await digestOfDisk(source, options)}\n`);
  else if (target === '-') await exportToStream(source, process.stdout, options);
  else await exportToFile(source, target, options);
}
