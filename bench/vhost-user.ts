/**
 * How fast does the vhost-user back end answer reads of local bytes? A driver in this process does what a
 * guest and its monitor do (shared memory, rings, event descriptors), over a read-only image in memory
 * as a cache that has everything: ZFile layers, whose blocks are checked and decoded. Driver and back end
 * share one thread, so that both their costs are in the figures.
 *
 *   node bench/vhost-user.ts [--mib 64] [--seconds 2] [--json]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { kernelKind } from '../native/kernels.ts';
import { systemClock } from '../src/base/clock.ts';
import { SECTOR_BYTES } from '../src/base/limits.ts';
import { silentLogger } from '../src/base/log.ts';
import { StackDevice } from '../src/device/device.ts';
import { createTapMap } from '../src/device/tap.ts';
import { startVhostUser } from '../src/frontend/vhost-user/server.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { openStack } from '../src/image/stack.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import { VhostDriver } from './support/vhost-driver.ts';
import { randomOf } from './support/boot-reads.ts';
import { MemoryBlob } from './support/memory-blob.ts';
import { MemorySink } from './support/memory-sink.ts';
import { mixedData } from './support/real-data.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '64' },
    seconds: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const KIB = 1024;
const ROUNDS = 7;
const BLOCK_BYTES = 64 * KIB;
const cases = [
  { name: 'random 4 KiB', bytes: 4 * KIB, depth: 1 },
  { name: 'random 4 KiB', bytes: 4 * KIB, depth: 32 },
  { name: 'random 128 KiB', bytes: 128 * KIB, depth: 8 },
];

function* extents(data: Buffer): Generator<LsmtExtent> {
  for (let at = 0; at < data.length; at += BLOCK_BYTES) {
    const sectors = BLOCK_BYTES / SECTOR_BYTES;
    yield { lba: at / SECTOR_BYTES, sectors, data: data.subarray(at, at + BLOCK_BYTES) };
  }
}

async function openDevice(data: Buffer): Promise<StackDevice> {
  const sink = new MemorySink();
  const zfile = new ZFileWriter(sink, { algorithm: 'lz4' });
  await writeCommittedLayer(zfile, { virtualSizeBytes: data.length }, extents(data));
  await zfile.finish();
  const blob = new MemoryBlob(sink.bytes, 'lazy', 'layer');
  await blob.ensure(0, blob.sizeBytes);
  const stack = await openStack([blob]);
  return new StackDevice({
    id: 'bench',
    stack,
    shared: { stack: stack.map, tap: createTapMap(1) },
    clock: systemClock,
    log: silentLogger,
    observer: { onMiss: () => 'demand', onMissDone: () => undefined },
  });
}

/** Keeps `depth` reads under way for `ms`; gives reads a second. */
async function measure(
  driver: VhostDriver,
  diskBytes: number,
  { bytes, depth }: (typeof cases)[number],
  ms: number,
): Promise<number> {
  const [queue] = driver.queues;
  const next = randomOf(1);
  const positions = Math.floor(diskBytes / bytes);
  const startedMs = performance.now();
  let done = 0;
  const runOne = async (slot: number): Promise<void> => {
    const header = driver.dataAt + slot * 256 * KIB;
    const pieces = [
      { offset: header, length: 16, writable: false },
      { offset: header + 4 * KIB, length: bytes, writable: true },
      { offset: header + 512, length: 1, writable: true },
    ];
    const { bytes: memory } = driver;
    while (performance.now() - startedMs < ms) {
      memory.writeUInt32LE(0, header);
      const sector = (Math.floor(next() * positions) * bytes) / SECTOR_BYTES;
      memory.writeBigUInt64LE(BigInt(sector), header + 8);
      const length = await queue.submit(pieces);
      if (length !== bytes + 1 || memory[header + 512] !== 0) throw new Error('a read failed');
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: depth }, async (_, slot) => await runOne(slot)));
  return (done * 1000) / (performance.now() - startedMs);
}

const mixed = mixedData(Number(values.mib) * KIB * KIB);
const data = mixed.subarray(0, mixed.length - (mixed.length % BLOCK_BYTES));
const folder = mkdtempSync(join(tmpdir(), 'replaybd-bench-'));
const frontend = await startVhostUser(await openDevice(data), { socketPath: join(folder, 's') });
const driver = await VhostDriver.connect(frontend.path, { memoryBytes: 16 * KIB * KIB });
await driver.begin();
const rows: Record<string, string | number>[] = [];
for (const test of cases) {
  const [queue] = driver.queues;
  const before = { kicks: queue.kicks, calls: queue.calls };
  const rates: number[] = [];
  let reads = 0;
  for (let round = 0; round < ROUNDS; round += 1) {
    const ms = (Number(values.seconds) * 1000) / ROUNDS;
    rates.push(await measure(driver, data.length, test, ms));
    reads += (rates[round] * ms) / 1000;
  }
  rows.push({
    reads: test.name,
    depth: test.depth,
    readsPerSecond: Math.round(median(rates)),
    bestReadsPerSecond: Math.round(Math.max(...rates)),
    gigabytesPerSecond: (median(rates) * test.bytes) / 1e9,
    readsPerKick: reads / (queue.kicks - before.kicks),
    readsPerCall: reads / (queue.calls - before.calls),
  });
}
driver.close();
await frontend.close();
rmSync(folder, { recursive: true });
const facts = { ...machineFacts(), kernels: kernelKind(), diskBytes: data.length };
if (values.json) process.stdout.write(`${JSON.stringify({ bench: 'vhost-user', facts, rows })}\n`);
else process.stdout.write(formatTable(rows));
