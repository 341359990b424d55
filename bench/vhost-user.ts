/**
 * How fast does the vhost-user back end answer reads of local bytes, and writes? A driver in this process
 * does what a guest and its monitor do (shared memory, rings, event descriptors). Reads are of a read-only
 * image in memory as a cache that has everything: ZFile layers, whose blocks are checked and decoded. Writes
 * go to a fresh layer in DIR, durable each (write-through, as before a guest's first flush) or when the guest
 * flushes (write-back; it does once, before). Driver and back end share one thread, so that both their
 * costs are in the figures.
 *
 *   node bench/vhost-user.ts [--mib 64] [--seconds 2] [--folder DIR] [--json]
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
import { WritableDevice } from '../src/device/writable-device.ts';
import { blockType } from '../src/frontend/vhost-user/protocol.ts';
import { startVhostUser } from '../src/frontend/vhost-user/server.ts';
import { createUpper } from '../src/image/lsmt/create-upper.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { openWritableUpper } from '../src/image/lsmt/writable-upper.ts';
import { emptyStack, openStack } from '../src/image/stack.ts';
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
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const KIB = 1024;
const ROUNDS = 7;
const BLOCK_BYTES = 64 * KIB;
/** Of the disk that is written. */
const WRITTEN_BYTES = 2 ** 30;
interface Case {
  readonly name: string;
  readonly type: number;
  readonly bytes: number;
  readonly depth: number;
}
const reads: readonly Case[] = [
  { name: 'reads, random 4 KiB', type: blockType.read, bytes: 4 * KIB, depth: 1 },
  { name: 'reads, random 4 KiB', type: blockType.read, bytes: 4 * KIB, depth: 32 },
  { name: 'reads, random 128 KiB', type: blockType.read, bytes: 128 * KIB, depth: 8 },
];
const writes: readonly Case[] = [
  { name: 'random 4 KiB', type: blockType.write, bytes: 4 * KIB, depth: 1 },
  { name: 'random 4 KiB', type: blockType.write, bytes: 4 * KIB, depth: 32 },
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
  return new StackDevice({ ...common, stack, shared: { stack: stack.map, tap: createTapMap(1) } });
}

async function openWritable(folder: string, name: string): Promise<WritableDevice> {
  const paths = { data: join(folder, `${name}.data`), index: join(folder, `${name}.index`) };
  await createUpper({ ...paths, kind: 'append', virtualSizeBytes: WRITTEN_BYTES });
  const upper = await openWritableUpper(paths);
  const stack = emptyStack(WRITTEN_BYTES);
  return new WritableDevice({ ...common, stack, tap: createTapMap(1), upper, configPath: '' });
}

const common = {
  id: 'bench',
  clock: systemClock,
  log: silentLogger,
  observer: { onMiss: () => 'demand' as const, onMissDone: () => undefined },
};

/** Keeps `depth` requests under way for `ms`; gives requests a second. */
async function measure(
  driver: VhostDriver,
  diskBytes: number,
  { type, bytes, depth }: Case,
  ms: number,
): Promise<number> {
  const [queue] = driver.queues;
  const next = randomOf(1);
  const positions = Math.floor(diskBytes / bytes);
  const startedMs = performance.now();
  const isRead = type === blockType.read;
  const answerBytes = isRead ? bytes + 1 : 1;
  let done = 0;
  const runOne = async (slot: number): Promise<void> => {
    const header = driver.dataAt + slot * 256 * KIB;
    const pieces = [
      { offset: header, length: 16, writable: false },
      { offset: header + 4 * KIB, length: bytes, writable: isRead },
      { offset: header + 512, length: 1, writable: true },
    ];
    const { bytes: memory } = driver;
    while (performance.now() - startedMs < ms) {
      memory.writeUInt32LE(type, header);
      const sector = (Math.floor(next() * positions) * bytes) / SECTOR_BYTES;
      memory.writeBigUInt64LE(BigInt(sector), header + 8);
      const length = await queue.submit(pieces);
      if (length !== answerBytes || memory[header + 512] !== 0) throw new Error('it failed');
      done += 1;
    }
  };
  await Promise.all(Array.from({ length: depth }, async (_, slot) => await runOne(slot)));
  return (done * 1000) / (performance.now() - startedMs);
}

const rows: Record<string, string | number>[] = [];

/** One row for each case of a device. */
async function measureAll(
  device: StackDevice | WritableDevice,
  cases: readonly Case[],
  isWriteback = false,
): Promise<void> {
  const frontend = await startVhostUser(device, { socketPath: join(folder, 's') });
  const driver = await VhostDriver.connect(frontend.path, { memoryBytes: 16 * KIB * KIB });
  await driver.begin();
  if (isWriteback) await flush(driver);
  for (const test of cases) {
    const [queue] = driver.queues;
    const before = { kicks: queue.kicks, calls: queue.calls };
    const rates: number[] = [];
    let done = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const ms = (Number(values.seconds) * 1000) / ROUNDS;
      rates.push(await measure(driver, device.virtualSizeBytes, test, ms));
      done += (rates[round] * ms) / 1000;
    }
    rows.push({
      requests: test.name,
      depth: test.depth,
      perSecond: Math.round(median(rates)),
      bestPerSecond: Math.round(Math.max(...rates)),
      gigabytesPerSecond: (median(rates) * test.bytes) / 1e9,
      perKick: done / (queue.kicks - before.kicks),
      perCall: done / (queue.calls - before.calls),
    });
  }
  driver.close();
  await frontend.close();
}

async function flush({ bytes, dataAt, queues }: VhostDriver): Promise<void> {
  bytes.fill(0, dataAt, dataAt + 16);
  bytes.writeUInt32LE(blockType.flush, dataAt);
  const header = { offset: dataAt, length: 16, writable: false };
  await queues[0].submit([header, { offset: dataAt + 512, length: 1, writable: true }]);
}

const mixed = mixedData(Number(values.mib) * KIB * KIB);
const data = mixed.subarray(0, mixed.length - (mixed.length % BLOCK_BYTES));
const folder = mkdtempSync(join(values.folder, 'replaybd-bench-'));
try {
  await measureAll(await openDevice(data), reads);
  for (const cache of ['write-through', 'write-back']) {
    const device = await openWritable(folder, cache);
    const named = writes.map((test) => ({ ...test, name: `${cache}, ${test.name}` }));
    await measureAll(device, named, cache === 'write-back');
    await device.close();
  }
} finally {
  rmSync(folder, { recursive: true });
}
const facts = { ...machineFacts(), kernels: kernelKind(), diskBytes: data.length };
if (values.json) process.stdout.write(`${JSON.stringify({ bench: 'vhost-user', facts, rows })}\n`);
else process.stdout.write(formatTable(rows));
