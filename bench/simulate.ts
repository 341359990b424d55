/**
 * What does it take to simulate a cold start? Traces like a boot's of 20,000 and 100,000 records, and
 * what is in traces/; processor time in ms:
 *
 *   first      the first start of the process with that trace: the code is still being compiled
 *   once       simulateColdStart: the trace is made ready, then a lazy and a replayed start
 *   link       the same of a trace that is ready, on another link each time
 *   policy     the same on one link: the lazy start is known
 *
 *   node bench/simulate.ts [--runs 15] [--mbit 100] [--rtt-ms 20] [--json]
 *
 * Medians, and the least of `once`: a machine that is busy makes all of them longer.
 */
import { globSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageRoot } from '../src/base/package-root.ts';
import {
  prepareSimulation,
  simulate,
  simulateColdStart,
} from '../src/prefetch/simulate/simulate.ts';
import { decodeTrace } from '../src/trace/decode.ts';
import type { Trace } from '../src/trace/trace.ts';
import { bootTrace } from './support/boot-trace.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '15' },
    mbit: { type: 'string', default: '100' },
    'rtt-ms': { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const link = {
  bytesPerSecond: (Number(values.mbit) * 1e6) / 8,
  roundTripMs: Number(values['rtt-ms']),
};

const rows = [
  ...[20_000, 100_000].map((count) => measure(`boot-like ${count}`, bootTrace(count))),
  ...globSync(join(packageRoot, 'traces/*.trace')).map((path) =>
    measure(basename(path), decodeTrace(readFileSync(path), path)),
  ),
];
if (values.json) {
  const report = { bench: 'simulate', ...machineFacts(), runs, link, rows };
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
} else {
  process.stdout.write(formatTable(rows));
}

function measure(trace: string, content: Trace): Record<string, string | number> {
  const once = timesOf(() => simulateColdStart(content, { link }));
  const prepared = prepareSimulation(content);
  const links = timesOf((run) => {
    simulate(prepared, { link: { ...link, roundTripMs: link.roundTripMs * (1 + run / 1000) } });
  });
  simulate(prepared, { link });
  const policies = timesOf(() => simulate(prepared, { link }));
  return {
    trace,
    records: content.records.count,
    ranges: content.plan.count,
    firstMs: once[0],
    onceMsMin: Math.min(...once),
    onceMs: median(once),
    linkMs: median(links),
    policyMs: median(policies),
  };
}

/** Processor time of each run, in ms. */
function timesOf(work: (run: number) => void): number[] {
  return Array.from({ length: runs }, (_, run) => {
    const before = process.cpuUsage();
    work(run);
    const { user, system } = process.cpuUsage(before);
    return (user + system) / 1000;
  });
}
