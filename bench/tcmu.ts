/**
 * How fast is a TCMU ring answered when all data is local? A simulation of the kernel's side shares
 * one core with it: it keeps a number of commands in the ring, as tcm_loop would. Both the ring and
 * the data area are what the kernel maps: mailbox version 2, 8 MiB, out-of-order completions. The
 * disks: a layer of LSMT as it is (raw), and one in LZ4 ZFile.
 *
 *   node bench/tcmu.ts [--mib 128] [--seconds 2] [--json]
 */
import { parseArgs } from 'node:util';
import { kernelKind } from '../native/kernels.ts';
import { mapMemory } from '../native/memory-map.ts';
import { systemClock } from '../src/base/clock.ts';
import { SECTOR_BYTES } from '../src/base/limits.ts';
import { silentLogger } from '../src/base/log.ts';
import { StackDevice } from '../src/device/device.ts';
import { createTapMap } from '../src/device/tap.ts';
import { TcmuRing } from '../src/frontend/tcmu/ring.ts';
import { ScsiTarget } from '../src/frontend/tcmu/scsi/target.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { openStack } from '../src/image/stack.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import { TcmuKernel } from './support/tcmu-kernel.ts';
import { randomOf } from './support/boot-reads.ts';
import { MemoryBlob } from './support/memory-blob.ts';
import { MemorySink } from './support/memory-sink.ts';
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
const MIB = 1024 * KIB;
const RING_AREA_BYTES = 8 * MIB;
const DATA_BYTES = 64 * MIB;
const ROUNDS = 9;
const EXTENT_BYTES = 64 * KIB;

const cases = [
  { name: 'random 4 KiB, depth 1', bytes: 4 * KIB, depth: 1 },
  { name: 'random 4 KiB, depth 32', bytes: 4 * KIB, depth: 32 },
  { name: 'random 128 KiB, depth 32', bytes: 128 * KIB, depth: 32 },
];

function* extentsOf(data: Buffer): Generator<LsmtExtent> {
  for (let at = 0; at < data.length; at += EXTENT_BYTES) {
    const piece = data.subarray(at, at + EXTENT_BYTES);
    yield { lba: at / SECTOR_BYTES, sectors: piece.length / SECTOR_BYTES, data: piece };
  }
}

async function openDisk(data: Buffer, codec: 'raw' | 'lz4'): Promise<StackDevice> {
  const sink = new MemorySink();
  if (codec === 'raw') {
    await writeCommittedLayer(sink, { virtualSizeBytes: data.length }, extentsOf(data));
  } else {
    const zfile = new ZFileWriter(sink, { algorithm: codec });
    await writeCommittedLayer(zfile, { virtualSizeBytes: data.length }, extentsOf(data));
    await zfile.finish();
  }
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

/** A READ (16). */
function readCdb(cdb: Uint8Array, offset: number, bytes: number): Uint8Array {
  const view = new DataView(cdb.buffer);
  cdb[0] = 0x88;
  view.setUint32(6, offset / SECTOR_BYTES);
  view.setUint32(10, bytes / SECTOR_BYTES);
  return cdb;
}

/** Reads a second of some rounds, and commands a kick. */
function measure(
  device: StackDevice,
  test: (typeof cases)[number],
): { rates: number[]; perKick: number } {
  const memory = mapMemory(RING_AREA_BYTES + DATA_BYTES, 'the simulated ring');
  const kernel = new TcmuKernel({
    memory: memory.bytes,
    ringAreaBytes: RING_AREA_BYTES,
    dataBytes: DATA_BYTES,
  });
  const expected = new Uint8Array(test.bytes);
  let failed = 0;
  let completed = 0;
  kernel.onComplete = ({ status }) => {
    completed += 1;
    if (status !== 0) failed += 1;
  };
  const identity = {
    vendor: 'bench',
    product: 'ring',
    revision: '1',
    serial: '1',
    wwn: '5'.repeat(16),
  };
  const ring = new TcmuRing({
    memory: memory.bytes,
    target: new ScsiTarget(device, identity),
    kick: kernel.kick,
    onBroken: (error) => {
      throw error;
    },
    log: silentLogger,
  });
  const next = randomOf(1);
  const positions = Math.floor(device.virtualSizeBytes / test.bytes);
  const cdb = new Uint8Array(16);
  const checkOne = (): void => {
    const offset = Math.floor(next() * positions) * test.bytes;
    const command = kernel.submit({
      cdb: readCdb(cdb, offset, test.bytes),
      dataInBytes: test.bytes,
    });
    ring.onKick();
    if (command === null || !device.readCached(offset, expected)) throw new Error('a read missed');
    if (Buffer.compare(expected, kernel.dataIn(command)) !== 0)
      throw new Error('the data is wrong');
  };
  const roundMs = (Number(values.seconds) * 1000) / ROUNDS;
  const rates = Array.from({ length: ROUNDS }, () => {
    const before = completed;
    const startedMs = performance.now();
    while (performance.now() - startedMs < roundMs) {
      while (kernel.commands.size < test.depth) {
        readCdb(cdb, Math.floor(next() * positions) * test.bytes, test.bytes);
        if (kernel.submit({ cdb, dataInBytes: test.bytes }) === null) throw new Error('no room');
      }
      ring.onKick();
    }
    return ((completed - before) * 1000) / (performance.now() - startedMs);
  });
  checkOne();
  if (failed > 0) throw new Error(`${failed} commands failed`);
  const perKick = completed / kernel.kicks;
  memory.unmap();
  return { rates, perKick };
}

const data = mixedData(Number(values.mib) * MIB);
const disk = data.subarray(0, data.length - (data.length % EXTENT_BYTES));
const rows = [];
for (const codec of ['raw', 'lz4'] as const) {
  const device = await openDisk(disk, codec);
  for (const test of cases) {
    const { rates, perKick } = measure(device, test);
    const commandsPerSecond = Math.round(median(rates));
    rows.push({
      disk: codec,
      reads: test.name,
      commandsPerSecond,
      gigabytesPerSecond: (commandsPerSecond * test.bytes) / 1e9,
      bestCommandsPerSecond: Math.round(Math.max(...rates)),
      commandsPerKick: perKick,
    });
  }
}
const facts = { ...machineFacts(), kernels: kernelKind(), diskBytes: disk.length };
if (values.json) process.stdout.write(`${JSON.stringify({ bench: 'tcmu', facts, rows })}\n`);
else process.stdout.write(formatTable(rows));
