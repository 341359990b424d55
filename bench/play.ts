/**
 * How close does a replay come to what the link allows? A boot-like list of reads against a four-layer
 * image behind a link of known latency and bandwidth, from attaching to the last byte, cold cache:
 *
 *   lazy       no trace
 *   refill     as the original reads: 256 KiB units of a blob, one request each, one after another
 *   record     lazy, while recording
 *   replay     with the trace of that; one and four reads at once
 *   packed     with --packed: the same with the trace's hot blob (see docs/trace-lab.md)
 *   bound      latency + needed bytes / bandwidth: compressed blocks and metadata, to the byte
 *
 * --one-range: of a registry that answers one range a request. And, at two links, what reads outside the trace wait during a replay.
 *
 *   node bench/play.ts [--runs 5] [--mib 24] [--seed 1] [--link 100MB/s] [--packed] [--one-range] [--work DIR] [--json]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { formatTable, machineFacts, median, percentile } from './support/report.ts';
import { startRegistryProcess } from './support/registry-process.ts';
import { openBench, type Bench, type Run } from './support/play-runs.ts';

interface BenchLink {
  name: string;
  latencyMs: number;
  bytesPerSecond: number;
  /** Also measure reads outside the trace. */
  others: boolean;
}

const LINKS: readonly BenchLink[] = [
  { name: '5 ms 200 MB/s', latencyMs: 5, bytesPerSecond: 200e6, others: false },
  { name: '20 ms 125 MB/s', latencyMs: 20, bytesPerSecond: 125e6, others: false },
  { name: '20 ms 100 MB/s', latencyMs: 20, bytesPerSecond: 100e6, others: true },
  { name: '50 ms 125 MB/s', latencyMs: 50, bytesPerSecond: 125e6, others: false },
  { name: '50 ms 50 MB/s', latencyMs: 50, bytesPerSecond: 50e6, others: false },
  { name: '50 ms 12.5 MB/s', latencyMs: 50, bytesPerSecond: 12.5e6, others: false },
  { name: '20 ms 12.5 MB/s', latencyMs: 20, bytesPerSecond: 12.5e6, others: true },
  { name: '20 ms 3.125 MB/s', latencyMs: 20, bytesPerSecond: 3.125e6, others: false },
];

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '5' },
    mib: { type: 'string', default: '24' },
    seed: { type: 'string', default: '1' },
    link: { type: 'string' },
    packed: { type: 'boolean', default: false },
    'one-range': { type: 'boolean', default: false },
    work: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const MIB = 2 ** 20;

interface LinkResult {
  link: string;
  boundMs: number;
  granuleBoundMs: number;
  lazyMs: number;
  refillMs: number;
  recordMs: number;
  replayMs: number;
  replay4Ms: number;
  /** With the hot blob; null unless asked for. */
  packedMs: number | null;
  packedRequestsPerMib: number | null;
  /** (replay - 2 latencies) / bound; at most 1.10 is the aim. */
  replayToBound: number;
  lazyToRefill: number;
  /** Of the replay with one read at once. */
  requestsPerMib: number;
  prefetchedMib: number;
  firstRequestMs: number;
  coverage: number;
  accuracy: number;
  timeliness: number;
}

interface OthersResult {
  link: string;
  samples: number;
  p50AloneMs: number;
  p50ReplayMs: number;
  p99AloneMs: number;
  p99ReplayMs: number;
  ratio: number;
}

async function measureLink(bench: Bench, link: BenchLink): Promise<LinkResult> {
  await bench.registry.setLink(link);
  const { latencyMs, bytesPerSecond } = link;
  const lazy: Run[] = [];
  const refillsMs: number[] = [];
  const records: Run[] = [];
  const replays: Run[] = [];
  const replays4: Run[] = [];
  const packs: Run[] = [];
  for (let i = 0; i < runs; i += 1) {
    lazy.push(await bench.play('off'));
    refillsMs.push(await bench.refill());
    records.push(await bench.play('record', { trace: 'again' }));
    replays.push(await bench.play('replay'));
    replays4.push(await bench.play('replay', { concurrency: 4 }));
    if (values.packed) packs.push(await bench.play('replay', { packed: 'on' }));
  }
  const timeOf = (plays: readonly Run[]): number => median(plays.map((run) => run.totalMs));
  const boundOf = (bytes: number): number => latencyMs + (bytes * 1000) / bytesPerSecond;
  const boundMs = boundOf(bench.need.exactBytes);
  const of = (pick: (run: Run) => number): number => median(replays.map(pick));
  return {
    link: link.name,
    boundMs,
    granuleBoundMs: boundOf(bench.need.granuleBytes),
    lazyMs: timeOf(lazy),
    refillMs: median(refillsMs),
    recordMs: timeOf(records),
    replayMs: timeOf(replays),
    replay4Ms: timeOf(replays4),
    packedMs: values.packed ? timeOf(packs) : null,
    packedRequestsPerMib: values.packed
      ? median(packs.map((run) => run.prefetchRequests / (run.prefetchedBytes / MIB)))
      : null,
    replayToBound: (timeOf(replays) - 2 * latencyMs) / boundMs,
    lazyToRefill: timeOf(lazy) / median(refillsMs),
    requestsPerMib: of((run) => run.prefetchRequests / (run.prefetchedBytes / MIB)),
    prefetchedMib: of((run) => run.prefetchedBytes / MIB),
    firstRequestMs: of((run) => run.firstRequestMs),
    coverage: of((run) => run.quality.coverage ?? 0),
    accuracy: of((run) => run.quality.accuracy ?? 0),
    timeliness: of((run) => run.quality.timeliness ?? 0),
  };
}

/** Reads that are not in the trace, with and without a replay beside them. */
async function measureOthers(bench: Bench, link: BenchLink): Promise<OthersResult> {
  await bench.registry.setLink(link);
  const alone: number[] = [];
  const beside: number[] = [];
  for (let i = 0; i < 2 * runs; i += 1) {
    const during = await bench.othersDuringReplay(i);
    beside.push(...during);
    alone.push(...(await bench.othersAlone(i, during.length)));
  }
  const p99AloneMs = percentile(alone, 0.99);
  const p99ReplayMs = percentile(beside, 0.99);
  return {
    link: link.name,
    samples: beside.length,
    p50AloneMs: median(alone),
    p50ReplayMs: median(beside),
    p99AloneMs,
    p99ReplayMs,
    ratio: p99ReplayMs / p99AloneMs,
  };
}

const work = values.work ?? (await mkdtemp(join(tmpdir(), 'replaybd-bench-play-')));
const bench = await openBench(work, startRegistryProcess, {
  totalBytes: Number(values.mib) * MIB,
  seed: Number(values.seed),
});
const links: LinkResult[] = [];
const others: OthersResult[] = [];
try {
  await bench.play('record');
  if (values.packed) await bench.pack();
  if (values['one-range']) await bench.registry.refuseSeveralRanges();
  for (const link of LINKS) {
    if (values.link !== undefined && !link.name.includes(values.link)) continue;
    process.stderr.write(`${link.name} ...\n`);
    links.push(await measureLink(bench, link));
    if (link.others) others.push(await measureOthers(bench, link));
  }
} finally {
  await bench.close();
  if (values.work === undefined) await rm(work, { recursive: true, force: true });
}

const { reads, need } = bench;
const machine = machineFacts();
if (values.json) {
  process.stdout.write(
    `${JSON.stringify({ machine, runs, reads: reads.length, need, links, others })}\n`,
  );
} else {
  const readBytes = reads.reduce((sum, read) => sum + read.length, 0);
  process.stdout.write(
    `${Object.values(machine).join(', ')}; medians of ${runs} runs\n` +
      `${reads.length} reads, ${(readBytes / MIB).toFixed(1)} MiB of the disk: ` +
      `${(need.exactBytes / MIB).toFixed(2)} MiB compressed, ` +
      `${(need.granuleBytes / MIB).toFixed(2)} MiB in whole granules\n\n` +
      `${formatTable(links.map(timesOf))}\n${formatTable(links.map(qualityOf))}\n` +
      formatTable(others.map((row) => ({ ...row }))),
  );
}

function timesOf(row: LinkResult): Record<string, string | number> {
  return {
    link: row.link,
    'bound ms': row.boundMs,
    granules: row.granuleBoundMs,
    lazy: row.lazyMs,
    refill: row.refillMs,
    record: row.recordMs,
    replay: row.replayMs,
    'replay x4': row.replay4Ms,
    ...(row.packedMs === null
      ? {}
      : { packed: row.packedMs, 'packed/replay': row.packedMs / row.replayMs }),
    'lazy/refill': row.lazyToRefill,
    '(replay-2L)/bound': row.replayToBound,
  };
}

function qualityOf(row: LinkResult): Record<string, string | number> {
  return {
    link: row.link,
    'requests/MiB': row.requestsPerMib,
    ...(row.packedRequestsPerMib === null
      ? {}
      : { 'packed requests/MiB': row.packedRequestsPerMib }),
    'prefetched MiB': row.prefetchedMib,
    'first request ms': row.firstRequestMs,
    coverage: row.coverage,
    accuracy: row.accuracy,
    timeliness: row.timeliness,
  };
}
