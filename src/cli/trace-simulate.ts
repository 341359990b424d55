import { InvalidArgumentError, Option, type Command } from 'commander';
import { simulateLimits } from '../base/limits.ts';
import { HOST_COST, HOST_COST_NONE } from '../prefetch/simulate/host-cost.ts';
import { formatGrid, formatSimulation } from '../prefetch/simulate/format.ts';
import { gridLinks, simulateGridRow, type GridRow } from '../prefetch/simulate/grid.ts';
import { countOutcomes, OutcomeLog, recordOutcomes } from '../prefetch/simulate/outcomes.ts';
import { prepareSimulation, simulate } from '../prefetch/simulate/simulate.ts';
import type { HostCost, SimulationOptions, SimulationPolicy } from '../prefetch/simulate/types.ts';
import { decodeTrace } from '../trace/decode.ts';
import { readTraceFile } from '../trace/store.ts';
import {
  bandwidth,
  collect,
  milliseconds,
  positiveNumber,
  rangeSize,
  wholeNumber,
} from './arguments.ts';
import { policyOption } from './simulated-link.ts';
import { tell } from './output.ts';
import { tellTruncated } from './truncated-plan.ts';

interface SimulateFlags {
  bandwidth?: number[];
  rtt?: number[];
  policy: SimulationPolicy;
  concurrency?: number;
  rangeSize?: number;
  warmMs?: number;
  hostCost: HostCost;
  grid?: boolean;
  json?: boolean;
}

/** Bytes a second and milliseconds, as the benches have them. */
const GRID_BANDWIDTHS = [25e6 / 8, 100e6 / 8, 1000e6 / 8];
const GRID_ROUND_TRIPS_MS = [5, 20, 50];

/** `replaybd trace simulate`. */
export function registerSimulate(trace: Command): void {
  trace
    .command('simulate')
    .description('predict a cold start on a link; a table where several links are given')
    .argument('<file>', 'a trace file')
    .option(
      '--bandwidth <rate>',
      'such as 100mbit or 12.5MB/s; may be repeated',
      collect(bandwidth),
    )
    .option('--rtt <time>', 'round trip, such as 20ms; may be repeated', collect(milliseconds))
    .addOption(policyOption())
    .option('--concurrency <n>', 'prefetch requests at once', wholeNumber(1, 1024))
    .option('--range-size <size>', 'the most that one prefetch request brings', rangeSize)
    .option('--warm-ms <ms>', 'how long a start takes with everything local', positiveNumber)
    .addOption(
      new Option(
        '--host-cost <costs>',
        'processor time in ms, of an attach, a request and a MiB; 0 for none',
      )
        .argParser(hostCost)
        .default(HOST_COST, formatHostCost(HOST_COST)),
    )
    .option('--grid', 'a table of 9 links, or of those given')
    .option('--json', 'as JSON')
    .action(simulateTrace);
}

async function simulateTrace(file: string, flags: SimulateFlags, command: Command): Promise<void> {
  const { policy, concurrency, rangeSize: rangeBytes, warmMs, grid = false } = flags;
  const bandwidths = flags.bandwidth ?? (grid ? GRID_BANDWIDTHS : []);
  const roundTripsMs = flags.rtt ?? (grid ? GRID_ROUND_TRIPS_MS : []);
  const links = gridLinks(bandwidths, roundTripsMs);
  if (links.length === 0) command.error('error: give --bandwidth and --rtt, or --grid');
  if (links.length > simulateLimits.gridLinksMax) {
    command.error(`error: ${links.length} links are more than ${simulateLimits.gridLinksMax}`);
  }
  const trace = decodeTrace(await readTraceFile(file), file);
  const prepared = prepareSimulation(trace);
  const truncated = tellTruncated(file, trace.plan);
  const optionsOf = (link: SimulationOptions['link']): SimulationOptions => ({
    ...{ link, policy, host: flags.hostCost },
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(rangeBytes === undefined ? {} : { rangeBytes }),
    ...(warmMs === undefined ? {} : { warmMs }),
  });
  if (links.length === 1 && !grid) {
    const log = new OutcomeLog();
    const result = simulate(prepared, optionsOf(links[0]), log);
    const records = countOutcomes(recordOutcomes(trace, log));
    const packed = simulate(prepared, { ...optionsOf(links[0]), policy: 'packed' });
    const { predictedMs, requests } = packed;
    const facts = { ...result, truncated, packed: { predictedMs, requests }, records };
    tell(flags, facts, formatSimulation(result, packed, records));
    return;
  }
  const rows: (GridRow & { truncated: boolean })[] = [];
  for (const link of links) {
    rows.push({ ...simulateGridRow(prepared, optionsOf(link)), truncated });
    if (process.stderr.isTTY) process.stderr.write(`\r${rows.length} of ${links.length} links`);
  }
  if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
  tell(flags, rows, formatGrid(rows));
}

function formatHostCost({ attachMs, requestMs, mibMs }: HostCost): string {
  return [attachMs, requestMs, mibMs].join();
}

function hostCost(text: string): HostCost {
  if (text === '0') return HOST_COST_NONE;
  const costs = /^(\d{1,5}(?:\.\d+)?),(\d{1,5}(?:\.\d+)?),(\d{1,5}(?:\.\d+)?)$/.exec(text);
  if (costs === null) {
    throw new InvalidArgumentError(
      `Expected ms of an attach, a request and a MiB, such as ${formatHostCost(HOST_COST)}.`,
    );
  }
  const [attachMs, requestMs, mibMs] = costs.slice(1).map(Number);
  return { attachMs, requestMs, mibMs };
}
