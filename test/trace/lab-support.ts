import fc from 'fast-check';
import { buildPlan, type LocatedPiece, type PlanInput } from '../../src/trace/build-plan.ts';
import { Recorder } from '../../src/trace/recorder.ts';
import type { Trace, TraceLayer } from '../../src/trace/trace.ts';
import { random, syntheticLayers, traceOf } from './synthetic.ts';

const STRIPE_SECTORS = 40;
const BLOB_BYTES = 6_000_077;

/** An image whose disk is stripes of two layers, "compressed" three to one. */
export const stripedLayers: readonly TraceLayer[] = syntheticLayers(2, BLOB_BYTES);

export const stripedImage: Pick<PlanInput, 'resolver' | 'metadataRanges'> = {
  resolver: {
    locate: (lba, sectors) => {
      const pieces: LocatedPiece[] = [];
      for (let at = lba; at < lba + sectors;) {
        const end = Math.min(nextStripe(at), lba + sectors);
        const layer = Math.floor(at / STRIPE_SECTORS) % 2;
        pieces.push({ lba: at, sectors: end - at, layer, lsmtOffset: at * 512 });
        at = end;
      }
      return pieces;
    },
    blobRangeOf: (piece) => ({
      offset: Math.floor(piece.lsmtOffset / 3) + 100,
      length: Math.ceil((piece.sectors * 512) / 3),
    }),
  },
  metadataRanges: [[{ offset: 0, length: 512 }], [{ offset: BLOB_BYTES - 600, length: 600 }]],
};

function nextStripe(lba: number): number {
  return (Math.floor(lba / STRIPE_SECTORS) + 1) * STRIPE_SECTORS;
}

export interface Access {
  readonly timeUs: number;
  readonly lba: number;
  readonly sectors: number;
}

/** What a recording of these accesses on the striped image gives. */
export function recordRun(accesses: readonly Access[]): Trace {
  const recorder = new Recorder({ locate: (lba, n) => stripedImage.resolver.locate(lba, n) });
  for (const { timeUs, lba, sectors } of accesses) {
    recorder.access(timeUs, lba * 512, sectors * 512);
  }
  const records = recorder.records();
  const plan = buildPlan({ ...stripedImage, records, layers: stripedLayers });
  return { ...traceOf(records, stripedLayers), plan };
}

const access = fc.record({
  gapUs: fc.nat(5000),
  lba: fc.nat(16_000),
  sectors: fc.integer({ min: 1, max: 300 }),
});

/** Random runs on the striped image. */
export const runs: fc.Arbitrary<Trace> = fc.array(access, { maxLength: 30 }).map((rows) => {
  let timeUs = 0;
  return recordRun(rows.map((row) => ({ ...row, timeUs: (timeUs += row.gapUs) })));
});

/** The same run, had each of its reads waited for `waitUs` before the next began. */
export function waiting(trace: Trace, waitUs: number): Trace {
  const { records, recording } = trace;
  const waits = records.timeUs.map((_, i) => i * waitUs);
  const timeUs = records.timeUs.map((value, i) => value + waits[i]);
  const durationUs = recording.durationUs + (waits.at(-1) ?? 0);
  return {
    ...trace,
    recording: { ...recording, durationUs },
    records: { ...records, timeUs, waitUs: waits },
  };
}

/**
 * Runs of one workload: `count` starts whose accesses come up to 30 ms earlier or later, at another
 * pace, in an order that changes with it, and a few in a hundred of which are others each time.
 */
export function jitteredRuns(count: number, seed = 1): Trace[] {
  const next = random(seed);
  const accessesOf = Array.from({ length: 400 }, (_, i) => {
    return { timeUs: i * 2500, lba: 8 * Math.floor(next() * 2000), sectors: 8 * (1 + (i % 16)) };
  });
  return Array.from({ length: count }, () => {
    const pace = 0.8 + next() * 0.4;
    const accesses = accessesOf.map((wanted) => {
      const lba = next() < 0.04 ? 8 * Math.floor(next() * 2000) : wanted.lba;
      const timeUs = Math.max(0, wanted.timeUs * pace + (next() - 0.5) * 60_000);
      return { ...wanted, lba, timeUs };
    });
    return recordRun(accesses.sort((a, b) => a.timeUs - b.timeUs));
  });
}

/** Every sector that a trace names, as `layer/sector`, in the trace's order; what it is worth. */
export function sectorsOf(trace: Trace): Map<string, { timeUs: number; weight: number }> {
  const found = new Map<string, { timeUs: number; weight: number }>();
  const { count, timeUs, lba, sectors, layer, weight } = trace.records;
  for (let i = 0; i < count; i += 1) {
    for (let sector = lba[i]; sector < lba[i] + sectors[i]; sector += 1) {
      found.set(`${layer[i]}/${sector}`, { timeUs: timeUs[i], weight: weight[i] });
    }
  }
  return found;
}

/** Every granule of a plan, as `blob/granule`, with its due time. */
export function granulesOf({ plan }: Trace): Map<string, number> {
  const found = new Map<string, number>();
  for (let i = 0; i < plan.count; i += 1) {
    const end = plan.offset[i] + plan.length[i];
    for (let at = plan.offset[i]; at < end; at += 4096) {
      found.set(`${plan.blob[i]}/${at / 4096}`, plan.dueUs[i]);
    }
  }
  return found;
}
