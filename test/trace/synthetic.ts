import { createHash } from 'node:crypto';
import { GRANULE_BYTES, traceLimits } from '../../src/base/limits.ts';
import {
  describeWorkload,
  emptyPlan,
  type Trace,
  type TraceLayer,
  type TracePlan,
  type TraceRecords,
} from '../../src/trace/trace.ts';

/** A small deterministic generator (mulberry32), so that every run of a test sees the same data. */
export function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function digestOfText(text: string): string {
  return `sha256:${createHash('sha256').update(text).digest('hex')}`;
}

export function syntheticLayers(count: number, sizeBytes = 512 * 1024 * 1024): TraceLayer[] {
  return Array.from({ length: count }, (_, index) => ({
    digest: digestOfText(`layer ${index}`),
    sizeBytes,
    diffId: index % 2 === 0 ? digestOfText(`diff ${index}`) : null,
  }));
}

/** A trace with the given records and a plausible rest. */
export function traceOf(records: TraceRecords, layers: readonly TraceLayer[], runs = 1): Trace {
  const durationUs = records.count === 0 ? 0 : records.timeUs[records.count - 1];
  return {
    image: { manifestDigest: digestOfText('manifest'), virtualSizeBytes: 64 * 2 ** 30, layers },
    workload: describeWorkload(['/bin/sh', '-c'], ['echo hello'], ['MODE=demo']),
    recording: {
      startedAtMs: 1_760_000_000_000,
      durationUs,
      endReason: 'detach',
      deviceSizeBytes: 64 * 2 ** 30,
    },
    runs,
    records,
    plan: emptyPlan,
  };
}

export function recordsOf(
  rows: readonly {
    timeUs: number;
    lba: number;
    sectors: number;
    layer: number;
    weight?: number;
    waitUs?: number;
  }[],
): TraceRecords {
  return {
    count: rows.length,
    timeUs: Float64Array.from(rows, (row) => row.timeUs),
    waitUs: Float64Array.from(rows, (row) => row.waitUs ?? 0),
    lba: Float64Array.from(rows, (row) => row.lba),
    sectors: Uint32Array.from(rows, (row) => row.sectors),
    layer: Uint16Array.from(rows, (row) => row.layer),
    weight: Uint16Array.from(rows, (row) => row.weight ?? 1),
  };
}

/**
 * First accesses like those of a guest's boot on a 10 GiB ext4 disk: read-ahead of 4 to 128 KiB,
 * 65 % of it sequential, jumps within a file system's groups, five layers, 30 to 1,500 us apart.
 */
export function bootLikeRecords(count: number, layerCount: number, seed = 1): TraceRecords {
  const next = random(seed);
  const deviceSectors = 10 * 2 ** 21;
  let timeUs = 0;
  let lba = 2048;
  let layer = 0;
  const rows = Array.from({ length: count }, () => {
    timeUs += 30 + Math.floor(next() * next() * 1500);
    if (next() > 0.65) {
      const near = next() < 0.5;
      const target = near ? lba + (next() - 0.5) * 262_144 : next() * deviceSectors;
      lba = Math.min(Math.max(Math.floor(target / 8) * 8, 0), deviceSectors - 512);
      layer = Math.floor(next() * layerCount);
    }
    const sectors = 8 * (1 + Math.floor(next() * next() * 32));
    const row = { timeUs, lba, sectors, layer };
    lba = Math.min(lba + sectors, deviceSectors - 512);
    return row;
  });
  return recordsOf(rows);
}

/** As many ranges as a plan may have: every second granule of a blob of 8 GiB or more, one a microsecond. */
export function longestPlan(): TracePlan {
  const count = traceLimits.planRangesMax;
  return {
    count,
    blob: new Uint16Array(count),
    offset: Float64Array.from({ length: count }, (_, i) => 2 * i * GRANULE_BYTES),
    length: new Float64Array(count).fill(GRANULE_BYTES),
    dueUs: Float64Array.from({ length: count }, (_, i) => i),
  };
}
