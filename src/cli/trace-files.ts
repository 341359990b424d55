import { Option, type Command } from 'commander';
import { stackDisk } from '../daemon/stack-disk.ts';
import { simulatedRecords } from '../prefetch/simulate/outcomes.ts';
import { decodeTrace } from '../trace/decode.ts';
import { mapAccessedFiles } from '../trace/file-map.ts';
import {
  FILE_ORDERS,
  formatFileReport,
  reportFiles,
  sortFiles,
  type FileOrder,
} from '../trace/file-report.ts';
import { readTraceFile } from '../trace/store.ts';
import { wholeNumber } from './arguments.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { addLinkOptions, simulatedStart, startOf, type LinkFlags } from './simulated-link.ts';
import { withImage } from './trace-image.ts';
import { tell } from './output.ts';

interface FilesFlags extends RuntimeFlags, LinkFlags {
  sort: FileOrder;
  limit: number;
  json?: boolean;
}

const LIMIT_DEFAULT = 50;

/** `replaybd trace files`. */
export function registerFiles(trace: Command): void {
  const command = trace
    .command('files')
    .description('print which files a trace read, when, how much, and what it waited for')
    .argument('<trace>', 'a trace file')
    .argument('<image>', 'config.v1.json or a registry reference: the image that was recorded')
    .addOption(new Option('--sort <by>', 'the order').choices(FILE_ORDERS).default('time'))
    .option(
      '--limit <files>',
      'print so many, the first in that order',
      wholeNumber(1),
      LIMIT_DEFAULT,
    )
    .option('--json', 'as JSON');
  addRuntimeOptions(addLinkOptions(command)).action(printFiles);
}

async function printFiles(
  file: string,
  image: string,
  flags: FilesFlags,
  command: Command,
): Promise<void> {
  const options = startOf(flags, command);
  const trace = decodeTrace(await readTraceFile(file), file);
  const start = simulatedStart(trace, options);
  const met = start === null ? null : simulatedRecords(start.outcomes);
  const report = await withImage(flags, image, trace.workload, async (target, signal) => {
    const disk = stackDisk(target.stack, image);
    return reportFiles(trace, await mapAccessedFiles(disk, trace.records, signal), target, met);
  });
  const files = sortFiles(report.files, flags.sort).slice(0, flags.limit);
  tell(flags, { ...report, files }, formatFileReport(report, files));
}
