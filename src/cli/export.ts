import { Option, type Command } from 'commander';
import {
  digestOfDisk,
  exportToFile,
  exportToStream,
  type ExportFileOptions,
  type ExportSource,
} from '../image/export.ts';
import { exportToQcow2 } from '../image/tools/export-qcow2.ts';
import type { DiskFormat } from '../image/tools/import.ts';
import { withInput } from './input.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, interruptible, ProgressLine } from './terminal.ts';

interface ExportFlags extends RuntimeFlags {
  sha256?: boolean;
  force?: boolean;
  format: DiskFormat;
}

/** `replaybd export`. */
export function register(program: Command): void {
  const command = program
    .command('export')
    .description("write an image's merged disk as a raw, sparse file, or as a qcow2 image")
    .argument(
      '<paths...>',
      'a config.v1.json or layer files, bottom first; then the file to write, or - for stdout',
    )
    .addOption(
      new Option('--format <name>', 'raw, or qcow2 (through qemu-img)')
        .choices(['raw', 'qcow2'])
        .default('raw'),
    )
    .option('--sha256', 'write nothing; print the SHA-256 of the whole disk')
    .option('-f, --force', 'replace the file if it is there already');
  addRuntimeOptions(command).action(run);
}

async function run(paths: string[], flags: ExportFlags, command: Command): Promise<void> {
  const isDigest = flags.sha256 === true;
  const inputs = isDigest ? paths : paths.slice(0, -1);
  const target = paths.at(-1);
  if (inputs.length === 0 || target === undefined) {
    command.error('error: name the file to write, "-" for standard output, or give --sha256');
  }
  if (target === '-' && flags.format === 'qcow2') {
    command.error('error: a qcow2 image cannot be written to standard output');
  }
  await interruptible((signal) =>
    withInput(
      inputs,
      flags,
      async ({ source }) => {
        const progress = new ProgressLine();
        const total = formatBytes(source.virtualSizeBytes);
        const onProgress = (done: number) => progress.show(`${formatBytes(done)} of ${total}`);
        try {
          const replace = flags.force ?? false;
          const options = { onProgress, signal, replace };
          await write(source, isDigest ? null : target, flags.format, options);
        } finally {
          progress.clear();
        }
      },
      signal,
    ),
  );
}

async function write(
  source: ExportSource,
  target: string | null,
  format: DiskFormat,
  options: ExportFileOptions,
): Promise<void> {
  if (target === null) process.stdout.write(`${await digestOfDisk(source, options)}\n`);
  else if (target === '-') await exportToStream(source, process.stdout, options);
  else if (format === 'qcow2') await exportToQcow2(source, target, options);
  else await exportToFile(source, target, options);
}
