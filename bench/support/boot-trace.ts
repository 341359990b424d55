import type { ByteRange } from '../../src/base/range.ts';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { buildPlan, type LocatedPiece, type PlanResolver } from '../../src/trace/build-plan.ts';
import { describeWorkload, type Trace, type TraceRecords } from '../../src/trace/trace.ts';
import { randomOf } from './boot-reads.ts';

const LAYERS = 5;
const DISK_SECTORS = 20 * 2 ** 21;
/** The disk's parts of this size come from the layers in turn, compressed to half. */
const STRIPE_SECTORS = 2 ** 15;
const COMPRESSED_SHARE = 1 / 2;
const BLOCK_SECTORS = 8;
/** Of all reads, those that go on where the last one ended; half of the others stay near it. */
const SEQUENTIAL_SHARE = 0.65;
const NEAR_SECTORS = 2 ** 18;
const READ_BLOCKS_MAX = 32;
/** Between two reads: mostly tens of microseconds, at most this much more. */
const GAP_US_MIN = 30;
const GAP_US_MORE = 1500;
const METADATA_BYTES = 64 * 1024;

/**
 * A trace like a boot's, of as many records as are asked for, with its plan: reads of 4 to 128 KiB, most
 * of them sequential, on a disk of 20 GiB from five layers. The same count gives the same trace.
 */
export function bootTrace(count: number): Trace {
  const next = randomOf(count);
  const timeUs = new Float64Array(count);
  const lba = new Float64Array(count);
  const sectors = new Uint32Array(count);
  const layer = new Uint16Array(count);
  let nowUs = 0;
  let at = 0;
  for (let i = 0; i < count; i += 1) {
    nowUs += GAP_US_MIN + Math.floor(next() * next() * GAP_US_MORE);
    if (next() > SEQUENTIAL_SHARE) {
      const target = next() < 1 / 2 ? at + (next() - 1 / 2) * NEAR_SECTORS : next() * DISK_SECTORS;
      at = Math.floor(target / BLOCK_SECTORS) * BLOCK_SECTORS;
    }
    const length = BLOCK_SECTORS * (1 + Math.floor(next() * next() * READ_BLOCKS_MAX));
    at = Math.min(Math.max(at, 0), DISK_SECTORS - length);
    timeUs[i] = nowUs;
    lba[i] = at;
    sectors[i] = length;
    layer[i] = layerOf(at);
    at += length;
  }
  const weight = new Uint16Array(count).fill(1);
  return traceOf({ count, timeUs, waitUs: new Float64Array(count), lba, sectors, layer, weight });
}

function traceOf(records: TraceRecords): Trace {
  const deviceSizeBytes = DISK_SECTORS * SECTOR_BYTES;
  const layers = Array.from({ length: LAYERS }, (_, index) => ({
    digest: `sha256:${String(index).padStart(64, '0')}`,
    sizeBytes: deviceSizeBytes * COMPRESSED_SHARE + METADATA_BYTES,
    diffId: null,
  }));
  const durationUs = records.timeUs[records.count - 1];
  const metadata = { offset: deviceSizeBytes * COMPRESSED_SHARE, length: METADATA_BYTES };
  return {
    image: { manifestDigest: null, virtualSizeBytes: deviceSizeBytes, layers },
    workload: describeWorkload(['/sbin/init'], []),
    recording: { startedAtMs: 0, durationUs, endReason: 'detach', deviceSizeBytes },
    runs: 1,
    records,
    plan: buildPlan({
      records,
      layers,
      resolver,
      metadataRanges: layers.map(() => [metadata]),
    }),
  };
}

const resolver: PlanResolver = {
  locate: (lba, sectors) => [{ lba, sectors, layer: layerOf(lba), lsmtOffset: lba * SECTOR_BYTES }],
  blobRangeOf: ({ lsmtOffset, sectors }: LocatedPiece): ByteRange => ({
    offset: Math.floor(lsmtOffset * COMPRESSED_SHARE),
    length: sectors * SECTOR_BYTES * COMPRESSED_SHARE,
  }),
};

function layerOf(lba: number): number {
  return Math.floor(lba / STRIPE_SECTORS) % LAYERS;
}
