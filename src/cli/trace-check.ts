import type { Command } from 'commander';
import {
  checkAgainst,
  checkImage,
  checkSoundness,
  type Criterion,
  type PlannedRun,
} from '../trace/check.ts';
import { printable } from '../base/printable.ts';
import { decodeTrace } from '../trace/decode.ts';
import { readTraceFile } from '../trace/store.ts';
import { byteSize, share } from './arguments.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { formatBytes, formatTable } from './terminal.ts';
import { withImage } from './trace-image.ts';
import { tell } from './output.ts';
import { tellTruncated } from './truncated-plan.ts';

interface CheckFlags extends RuntimeFlags {
  against?: string[];
  minCoverage?: number;
  maxWaste?: number;
  image?: string;
  json?: boolean;
}

/** Of a check that was made and that the trace did not pass. */
const FAILED_EXIT_CODE = 3;
const COVERAGE_MIN_DEFAULT = 0.95;

/** `replaybd trace check`. */
export function registerCheck(trace: Command): void {
  const checking = trace
    .command('check')
    .description('measure a trace, for CI; exits 3 when it does not pass')
    .argument('<trace>', 'a trace file')
    .option('--against <runs...>', 'traces of fresh runs, which it should have served')
    .option(
      '--min-coverage <share>',
      `least share of each run's plan, and of the trace's in the image (${COVERAGE_MIN_DEFAULT})`,
      share,
    )
    .option('--max-waste <size>', 'most that no run needs, e.g. 20MB (default: any)', byteSize)
    .option('--image <image>', 'config.v1.json or a registry reference it should be about')
    .option('--json', 'as JSON');
  addRuntimeOptions(checking).action(check);
}

async function check(file: string, flags: CheckFlags, command: Command): Promise<void> {
  const { against, minCoverage, maxWaste, image } = flags;
  if (maxWaste !== undefined && against === undefined) {
    command.error('error: --max-waste needs fresh runs: --against RUN...');
  }
  if (minCoverage !== undefined && against === undefined && image === undefined) {
    command.error('error: --min-coverage needs fresh runs or an image: --against RUN..., --image');
  }
  const coverageMin = minCoverage ?? COVERAGE_MIN_DEFAULT;
  const trace = decodeTrace(await readTraceFile(file), file);
  const criteria = checkSoundness(trace);
  if (against !== undefined) {
    const runs: PlannedRun[] = [];
    for (const name of against) {
      const { image: imageOf, plan } = decodeTrace(await readTraceFile(name), name);
      runs.push({ name, image: imageOf, plan });
    }
    const wasteBytesMax = maxWaste ?? null;
    criteria.push(...checkAgainst(trace, runs, { coverageMin, wasteBytesMax }));
  }
  if (image !== undefined) {
    const opened = await withImage(flags, image, trace.workload, async (target) => target.image);
    criteria.push(...checkImage(trace, opened, coverageMin));
  }
  const ok = criteria.every((criterion) => criterion.ok);
  const truncated = tellTruncated(file, trace.plan);
  const result = { trace: file, ok, truncated, criteria };
  tell(flags, result, format(criteria));
  if (!ok) process.exitCode = FAILED_EXIT_CODE;
}

function format(criteria: readonly Criterion[]): string {
  const rows = criteria.map(({ name, run, unit, bound, wanted, found, ok }) => [
    run === null ? name : `${name} of ${printable(run)}`,
    wanted === null ? 'any' : `at ${bound} ${amount(wanted, unit)}`,
    amount(found, unit),
    ok ? 'ok' : 'FAILED',
  ]);
  return formatTable([['CRITERION', 'WANTED', 'FOUND', ''], ...rows]);
}

function amount(value: number, unit: Criterion['unit']): string {
  if (unit === 'share') return `${(value * 100).toFixed(2)} %`;
  return unit === 'bytes' ? formatBytes(value) : String(value);
}
