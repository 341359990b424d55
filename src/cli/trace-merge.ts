import type { Command } from 'commander';
import { traceLimits } from '../base/limits.ts';
import { decodeTrace } from '../trace/decode.ts';
import { summariseTrace } from '../trace/describe.ts';
import { encodeMerged, TraceMerger, type MergedTrace, type MergeOptions } from '../trace/merge.ts';
import { readTraceFile } from '../trace/store.ts';
import { describeWorkload } from '../trace/trace.ts';
import { positiveNumber, wholeNumber } from './arguments.ts';
import { tellEmpty } from './empty-trace.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, ProgressLine } from './terminal.ts';
import { tellTruncated } from './truncated-plan.ts';
import { withImage } from './trace-image.ts';
import { tell, writeOutput } from './output.ts';

interface MergeFlags extends RuntimeFlags {
  output: string;
  minWeight: number;
  budget?: number;
  image?: string;
  json?: boolean;
}

/** `replaybd trace merge`. */
export function registerMerge(trace: Command): void {
  const merging = trace
    .command('merge')
    .description('make one trace of several runs of one workload')
    .argument('<traces...>', 'trace files; of a merged one, each of its runs counts')
    .requiredOption('-o, --output <file>', 'the trace to write')
    .option(
      '--min-weight <runs>',
      'leave out what fewer runs read',
      wholeNumber(1, traceLimits.runsMax),
      1,
    )
    .option('--budget <MiB>', 'most that the plan may hold: the earliest is kept', positiveNumber)
    .option(
      '--image <image>',
      'config.v1.json or a registry reference of the image: the plan is built anew',
    )
    .option('--json', 'print what was written as JSON');
  addRuntimeOptions(merging).action(merge);
}

async function merge(files: string[], flags: MergeFlags): Promise<void> {
  const merger = new TraceMerger();
  const progress = new ProgressLine();
  try {
    for (const [i, file] of files.entries()) {
      progress.show(`reading trace ${i + 1} of ${files.length}`);
      merger.add(decodeTrace(await readTraceFile(file), file), file);
    }
  } finally {
    progress.clear();
  }
  const { minWeight, budget, image, output } = flags;
  const options: MergeOptions = {
    weightMin: minWeight,
    ...(budget === undefined ? {} : { budgetBytes: Math.floor(budget * 2 ** 20) }),
  };
  const merged =
    image === undefined ? merger.merge(options) : await mergeFor(image, merger, options, flags);
  const bytes = encodeMerged(merged.trace, output);
  await writeOutput(output, bytes);
  const { recordedBytes, planBytes } = summariseTrace(merged.trace, bytes.length);
  const { runs, records, plan } = merged.trace;
  const facts = {
    output,
    traces: files.length,
    runs,
    records: records.count,
    recordedBytes,
    planRanges: plan.count,
    planBytes,
    leftOutBytes: merged.leftOutBytes,
  };
  const { byWeight, byBudget } = facts.leftOutBytes;
  const text =
    `${output}: ${facts.records} records of ${runs} runs, ${formatBytes(recordedBytes)}; ` +
    `plan of ${facts.planRanges} ranges, ${formatBytes(planBytes)}\n` +
    `left out: ${formatBytes(byWeight)} by weight, ${formatBytes(byBudget)} by budget\n`;
  tellTruncated(output, plan);
  tellEmpty(output, records, 'Lower --min-weight, or raise --budget.');
  tell(flags, facts, text);
}

function mergeFor(
  name: string,
  merger: TraceMerger,
  options: MergeOptions,
  flags: MergeFlags,
): Promise<MergedTrace> {
  return withImage(flags, name, describeWorkload([], []), async ({ image, stack }) => {
    const { layers } = image;
    const metadataRanges = stack.layers.map((layer) => layer.metadataRanges);
    return merger.merge({ ...options, image: { name, layers, resolver: stack, metadataRanges } });
  });
}
