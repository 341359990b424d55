import type { Command } from 'commander';
import { readListLimits } from '../base/limits.ts';
import { loadReadList, type ListedRead } from '../daemon/read-list.ts';
import type { Runtime } from '../daemon/runtime.ts';
import { formatQuality } from '../prefetch/quality.ts';
import { wholeNumber } from './arguments.ts';
import {
  addRuntimeOptions,
  addTraceOptions,
  addTraceSettings,
  openRuntime,
  type RuntimeFlags,
  type TraceFlags,
} from './runtime-options.ts';
import { interruptible } from './terminal.ts';
import { workloadOf } from './workload-options.ts';

interface PlayFlags extends RuntimeFlags, TraceFlags {
  reads: string;
  concurrency: number;
  think?: boolean;
  json?: boolean;
}

const concurrency = wholeNumber(1, readListLimits.concurrencyMax);

/** `replaybd play`: a list of reads against a device in this process, without a front end. */
export function register(program: Command): void {
  const command = program
    .command('play')
    .description('issue a list of reads against an image and report how long they took')
    .argument('<image>', 'config.v1.json or an image reference')
    .requiredOption('--reads <file>', 'lines of "offset length [think_us]", in bytes')
    .option('--concurrency <n>', 'reads in flight at once', concurrency, 1)
    .option('--think', 'pause before each read as the list says')
    .option('--json', 'print the result as JSON');
  addTraceOptions(addTraceSettings(addRuntimeOptions(command)), 'off').action(play);
}

async function play(target: string, flags: PlayFlags): Promise<void> {
  const reads = await loadReadList(flags.reads);
  const runtime = await openRuntime(flags);
  try {
    await interruptible((signal) => playOn(runtime, target, flags, reads, signal));
  } finally {
    await runtime.close();
  }
}

async function playOn(
  runtime: Runtime,
  target: string,
  flags: PlayFlags,
  reads: readonly ListedRead[],
  signal: AbortSignal,
): Promise<void> {
  const { Attachment } = await import('../daemon/attachment.ts');
  const { playReads } = await import('../daemon/player.ts');
  const attachment = await Attachment.open(runtime, {
    id: 'play',
    target,
    mode: flags.mode,
    workload: workloadOf(flags),
    signal,
    ...(flags.trace === undefined ? {} : { tracePath: flags.trace }),
    ...(flags.packed === undefined ? {} : { packed: flags.packed }),
    ...(flags.budget === undefined ? {} : { budgetBytes: flags.budget * 2 ** 20 }),
  });
  let result;
  try {
    result = await playReads({
      device: attachment.device,
      reads,
      concurrency: flags.concurrency,
      think: flags.think ?? false,
      signal,
    });
  } finally {
    await attachment.close();
  }
  const report = await attachment.close();
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify({ openMs: report.readyMs, ...result, report })}\n`);
    return;
  }
  const { latencyUs: latency } = result;
  process.stdout.write(
    `opened in     ${report.readyMs.toFixed(1)} ms\n` +
      `played in     ${result.totalMs.toFixed(1)} ms (${result.reads} reads, ${result.bytes} bytes)\n` +
      `latency us    p50 ${latency.p50.toFixed(0)}, p95 ${latency.p95.toFixed(0)}, ` +
      `p99 ${latency.p99.toFixed(0)}, max ${latency.max.toFixed(0)}\n` +
      `sha256        ${result.sha256}\n` +
      formatQuality(report.quality),
  );
}
