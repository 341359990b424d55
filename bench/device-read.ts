/**
 * How fast does a device answer reads of local bytes? One thread, no front end: index lookup, presence
 * bits, CRC, decoding, tap. Data: this machine's shared libraries and text files, in four layers of
 * ZFile (4 KiB blocks with CRC) in memory, as a cache that has everything.
 *
 *   node bench/device-read.ts [--mib 128] [--seconds 2] [--json]
 */
import { parseArgs } from 'node:util';
import { kernelKind } from '../native/kernels.ts';
import { systemClock } from '../src/base/clock.ts';
import { SECTOR_BYTES } from '../src/base/limits.ts';
import { silentLogger } from '../src/base/log.ts';
import { StackDevice } from '../src/device/device.ts';
import { createTapMap, TapDrain } from '../src/device/tap.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { openStack, type Stack } from '../src/image/stack.ts';
import type { ZFileAlgorithm } from '../src/image/zfile/format.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import { MemoryBlob } from './support/memory-blob.ts';
import { MemorySink } from './support/memory-sink.ts';
import { randomOf } from './support/boot-reads.ts';
import { mixedData } from './support/real-data.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '128' },
    seconds: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const KIB = 1024;
const ROUNDS = 9;
/** Fits a ring of the tap, so that nothing is lost between two drains. */
const READS_PER_TURN = 1000;
const UPPER_LAYERS = 3;
/** Of the disk, what each layer above the bottom replaces; its pieces are 4 to 64 KiB long. */
const REPLACED_SHARE = 0.3;

const reads = [
  { name: 'random 4 KiB', bytes: 4 * KIB, isRandom: true },
  { name: 'sequential 64 KiB', bytes: 64 * KIB, isRandom: false },
];

interface Result {
  codec: string;
  reads: string;
  tap: 'off' | 'on';
  readsPerSecond: number;
  gigabytesPerSecond: number;
  bestReadsPerSecond: number;
}

function* bottomExtents(data: Buffer): Generator<LsmtExtent> {
  for (let at = 0; at < data.length; at += 64 * KIB) {
    yield extentOf(data, at, Math.min(64 * KIB, data.length - at));
  }
}

/** Pieces of 4 KiB and its multiples, evenly spread. */
function* upperExtents(data: Buffer, layer: number): Generator<LsmtExtent> {
  const next = randomOf(layer);
  const pieceBytesMean = 34 * KIB;
  for (let at = 0; ;) {
    at += 4 * KIB * Math.round((2 * next() * pieceBytesMean) / REPLACED_SHARE / (4 * KIB));
    const bytes = 4 * KIB * (1 + Math.floor(next() * 16));
    if (at + bytes > data.length) return;
    yield extentOf(data, at, bytes);
    at += bytes;
  }
}

function extentOf(data: Buffer, at: number, bytes: number): LsmtExtent {
  const lba = at / SECTOR_BYTES;
  return { lba, sectors: bytes / SECTOR_BYTES, data: data.subarray(at, at + bytes) };
}

async function openImage(data: Buffer, algorithm: ZFileAlgorithm): Promise<Stack> {
  const blobs: MemoryBlob[] = [];
  for (let layer = 0; layer <= UPPER_LAYERS; layer += 1) {
    const sink = new MemorySink();
    const zfile = new ZFileWriter(sink, { algorithm });
    const extents = layer === 0 ? bottomExtents(data) : upperExtents(data, layer);
    await writeCommittedLayer(zfile, { virtualSizeBytes: data.length }, extents);
    await zfile.finish();
    const blob = new MemoryBlob(sink.bytes, 'lazy', `layer ${layer}`);
    await blob.ensure(0, blob.sizeBytes);
    blobs.push(blob);
  }
  return await openStack(blobs);
}

/** Reads a second of some rounds; with the tap on, what it recorded is drained between turns. */
function measure(stack: Stack, test: (typeof reads)[number], isTapped: boolean): number[] {
  const tap = createTapMap(1);
  const drain = new TapDrain(tap);
  drain.setEnabled(isTapped);
  const device = new StackDevice({
    id: 'bench',
    stack,
    shared: { stack: stack.map, tap },
    clock: systemClock,
    log: silentLogger,
    observer: { onMiss: () => 'demand', onMissDone: () => undefined },
  });
  const into = Buffer.alloc(test.bytes);
  const positions = Math.floor(device.virtualSizeBytes / test.bytes);
  const next = randomOf(1);
  const roundMs = (Number(values.seconds) * 1000) / ROUNDS;
  return Array.from({ length: ROUNDS }, () => {
    let count = 0;
    let elapsedMs = 0;
    while (elapsedMs < roundMs) {
      const startedMs = performance.now();
      for (let turn = 0; turn < READS_PER_TURN; turn += 1, count += 1) {
        const position = test.isRandom ? Math.floor(next() * positions) : count % positions;
        if (!device.readCached(position * test.bytes, into)) throw new Error('a read missed');
      }
      elapsedMs += performance.now() - startedMs;
      const drained = drain.drain(() => undefined);
      if (drained !== (isTapped ? READS_PER_TURN : 0)) throw new Error(`the tap saw ${drained}`);
    }
    return (count * 1000) / elapsedMs;
  });
}

const data = mixedData(Number(values.mib) * KIB * KIB);
// Whole blocks only, as disks have.
const disk = data.subarray(0, data.length - (data.length % (64 * KIB)));
const rows: Result[] = [];
let segments = 0;
for (const codec of ['lz4', 'zstd'] as const) {
  const stack = await openImage(disk, codec);
  segments = stack.map.index.segmentCount;
  for (const test of reads) {
    for (const tap of ['off', 'on'] as const) {
      const rates = measure(stack, test, tap === 'on');
      const readsPerSecond = Math.round(median(rates));
      rows.push({
        codec,
        reads: test.name,
        tap,
        readsPerSecond,
        gigabytesPerSecond: (readsPerSecond * test.bytes) / 1e9,
        bestReadsPerSecond: Math.round(Math.max(...rates)),
      });
    }
  }
}
const facts = { ...machineFacts(), kernels: kernelKind(), diskBytes: disk.length, segments };
if (values.json) process.stdout.write(`${JSON.stringify({ bench: 'device-read', facts, rows })}\n`);
else process.stdout.write(formatTable(rows.map((row) => ({ ...row }))));
