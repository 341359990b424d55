/**
 * How long does it take to find what serves a random 4 KiB read, and to merge a stack's indexes?
 *
 *   node bench/lookup.ts [--json]
 *
 * Ten layers; queries are drawn beforehand, uniformly over the disk. A lookup ends with layer,
 * mapped sector and length in hand. Medians of several repetitions; with a million segments, what is
 * touched competes for the processor's shared cache with whatever else the machine does.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { LsmtEntryColumns } from '../src/image/lsmt/index-entries.ts';
import { findSegment, mergeLayers } from '../src/image/lsmt/merged-index.ts';
import type { MergedIndexMap } from '../src/image/stack-map.ts';

const LAYERS = 10;
const SEGMENT_COUNTS = [1_000, 100_000, 1_000_000];
const QUERIES = 1 << 20;
const REPETITIONS = 9;
const READ_SECTORS = 8;

interface Row {
  entries: number;
  segments: number;
  mergeMs: number;
  randomNs: number;
  sequentialNs: number;
}

/** Keeps the work of the lookups observable. */
let sum = 0;

const { values } = parseArgs({ options: { json: { type: 'boolean', default: false } } });
const rows = SEGMENT_COUNTS.map(measure);
if (values.json) {
  const report = { bench: 'lookup', node: process.version, cpu: cpus()[0]?.model, layers: LAYERS };
  process.stdout.write(`${JSON.stringify({ ...report, rows }, null, 2)}\n`);
} else {
  console.table(rows);
}

function measure(entries: number): Row {
  const random = generator(entries);
  const diskSectors = entries * 64;
  const layers = makeLayers(entries, diskSectors, random);
  let map = mergeLayers(layers, diskSectors * 512);
  const mergeTimes = repeat(() => {
    map = mergeLayers(layers, diskSectors * 512);
  });
  const uniform = Float64Array.from({ length: QUERIES }, () =>
    Math.floor(random() * (diskSectors - READ_SECTORS)),
  );
  const sequential = Float64Array.from(
    { length: QUERIES },
    (_, i) => (i * READ_SECTORS) % (diskSectors - READ_SECTORS),
  );
  const perQueryNs = (lbas: Float64Array) =>
    (median(repeat(() => lookUpAll(map, lbas))) * 1e6) / QUERIES;
  return {
    entries,
    segments: map.segmentCount,
    mergeMs: round(median(mergeTimes)),
    randomNs: round(perQueryNs(uniform)),
    sequentialNs: round(perQueryNs(sequential)),
  };
}

function lookUpAll(map: MergedIndexMap, lbas: Float64Array): void {
  const { start, sectors, mapped, layer, segmentCount } = map;
  for (let i = 0; i < lbas.length; i += 1) {
    const lba = lbas[i];
    const at = findSegment(map, lba);
    if (at === segmentCount || start[at] >= lba + READ_SECTORS) continue;
    const skipped = Math.max(0, lba - start[at]);
    const length = Math.min(sectors[at] - skipped, READ_SECTORS);
    sum += layer[at] + mapped[at] + skipped + length;
  }
}

/** Each layer has its share of the entries, spread over the whole disk; one in ten is zeroed. */
function makeLayers(entries: number, diskSectors: number, random: () => number) {
  const share = entries / LAYERS;
  const stride = diskSectors / share;
  return Array.from({ length: LAYERS }, (): LsmtEntryColumns => {
    const start = new Float64Array(share);
    const sectors = new Uint16Array(share);
    const mapped = new Float64Array(share);
    const zeroed = new Uint8Array(share);
    let sector = 8;
    for (let i = 0; i < share; i += 1) {
      sectors[i] = 8 + Math.floor(random() * 56);
      start[i] = Math.floor(i * stride + random() * (stride - 64));
      mapped[i] = sector;
      zeroed[i] = random() < 0.1 ? 1 : 0;
      if (zeroed[i] === 0) sector += sectors[i];
    }
    return { count: share, start, sectors, mapped, zeroed, hasTags: false };
  });
}

function repeat(work: () => void): number[] {
  return Array.from({ length: REPETITIONS }, () => {
    const startedMs = performance.now();
    work();
    return performance.now() - startedMs;
  });
}

function median(times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[times.length >> 1];
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Numbers in [0, 1) that are the same in every run (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
