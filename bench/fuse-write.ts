/**
 * How fast are writes through FUSE and a loop device? A raw disk in memory shows the front end alone,
 * written by worker threads and by the main thread; an image with a writable layer, append-only or
 * sparse, in the temporary folder, the whole way. Also how long a guest is held up by a snapshot, and
 * how long a fork takes. Needs root and fio.
 *
 *   node bench/fuse-write.ts [--mib 256] [--seconds 3] [--workers 2] [--json]
 */
import { mkdtempSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Attachment } from '../src/daemon/attachment.ts';
import { Runtime } from '../src/daemon/runtime.ts';
import { writeDeviceConfig } from '../src/daemon/upper-folder.ts';
import type { BlockDevice } from '../src/device/block-device.ts';
import { startFuse, type FuseOptions } from '../src/frontend/fuse/fuse-frontend.ts';
import { fusePermitted } from '../src/frontend/fuse/permitted.ts';
import { FileSink } from '../src/image/byte-sink.ts';
import { writeCommittedLayer } from '../src/image/lsmt/writer.ts';
import type { UpperKind } from '../src/image/lsmt/upper-map.ts';
import { describeWorkload } from '../src/trace/trace.ts';
import { describeFio, measureFio, type FioCase, type FioResult } from './support/fio.ts';
import { MemoryDisk } from './support/fuse-disk.ts';
import { percentile } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '256' },
    seconds: { type: 'string', default: '3' },
    workers: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const sizeBytes = Number(values.mib) * 1024 * 1024;
const size = { sizeBytes, seconds: Number(values.seconds) };
const workers = Number(values.workers);

interface Row extends FioResult {
  device: string;
  path: 'loop' | 'file';
  case: string;
}

/** Milliseconds. */
interface Pauses {
  kind: UpperKind;
  snapshots: number;
  pauseP50: number;
  pauseMax: number;
  /** Of a device that was not written to since the last snapshot. */
  fork: number;
}

const RANDOM: FioCase = { name: 'random 4 KiB, depth 16', rw: 'randwrite', bs: '4k', depth: 16 };
const cases: readonly FioCase[] = [
  { name: 'random 4 KiB, depth 1', rw: 'randwrite', bs: '4k', depth: 1 },
  RANDOM,
  { name: 'sequential 128 KiB, depth 4', rw: 'write', bs: '128k', depth: 4 },
  { name: 'random 4 KiB, flush every 16', rw: 'randwrite', bs: '4k', depth: 1, flushEvery: 16 },
];

async function measureAll(name: string, device: BlockDevice, options: FuseOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const frontend = await startFuse(device, { ...options, directory: scratch, workers });
  try {
    for (const test of cases) {
      for (const [path, target] of [
        ['loop', frontend.path],
        ['file', frontend.filePath],
      ] as const) {
        const result = await measureFio(target, test, size);
        rows.push({ device: name, path, case: test.name, ...result });
      }
    }
  } finally {
    await frontend.close();
  }
  return rows;
}

async function measureRaw(sharesWrites: boolean): Promise<Row[]> {
  const name = sharesWrites ? 'raw, workers' : 'raw, main thread';
  const disk = new MemoryDisk(name, sizeBytes, { writable: true, sharesWrites });
  return await measureAll(name, disk, { reader: disk.reader });
}

/** An image of one empty layer: what lies below makes no difference to a write. */
async function openImage(runtime: Runtime, kind: UpperKind): Promise<Attachment> {
  const path = join(scratch, `lower-${kind}`);
  const file = await open(path, 'wx');
  await writeCommittedLayer(new FileSink(file), { virtualSizeBytes: sizeBytes }, []);
  await file.close();
  const target = `${path}.json`;
  await writeDeviceConfig(target, [{ kind: 'file', path }], { data: '', index: '' });
  return await Attachment.open(runtime, {
    ...{ id: kind, target, mode: 'off', workload: describeWorkload([], []) },
    ...{ readerThreads: workers, upperFolder: join(scratch, kind), upperKind: kind },
  });
}

async function measureImage(kind: UpperKind): Promise<{ rows: Row[]; pauses: Pauses }> {
  const runtime = await Runtime.open({ cacheFolder: null, quotaBytes: 2 ** 26 });
  const attachment = await openImage(runtime, kind);
  try {
    const rows = await measureAll(`${kind} layer`, attachment.device, {});
    return { rows, pauses: await measurePauses(attachment, kind) };
  } finally {
    await attachment.close();
    await runtime.close();
  }
}

/** Snapshots while fio writes as fast as it can. */
async function measurePauses(attachment: Attachment, kind: UpperKind): Promise<Pauses> {
  const frontend = await startFuse(attachment.device, { directory: scratch, workers });
  const pauses: number[] = [];
  try {
    let isWriting = true;
    const writing = measureFio(frontend.path, RANDOM, size).finally(() => (isWriting = false));
    while (isWriting && pauses.length < 100) {
      const { pauseMs, flushMs } = await attachment.snapshot({});
      pauses.push(pauseMs - flushMs);
    }
    await writing;
    await attachment.snapshot({});
    const { elapsedMs } = await attachment.fork({ folder: join(scratch, `${kind}-fork`) });
    return {
      kind,
      snapshots: pauses.length,
      pauseP50: percentile(pauses, 0.5),
      pauseMax: Math.max(...pauses),
      fork: elapsedMs,
    };
  } finally {
    await frontend.close();
  }
}

const permission = fusePermitted();
if (!permission.ok) throw new Error(permission.reason);
const scratch = mkdtempSync(join(tmpdir(), 'replaybd-bench-'));
try {
  const images = [await measureImage('append'), await measureImage('sparse')];
  const rows = [
    ...(await measureRaw(true)),
    ...(await measureRaw(false)),
    ...images.flatMap((image) => image.rows),
  ];
  const pauses = images.map((image) => image.pauses);
  if (values.json) process.stdout.write(`${JSON.stringify({ workers, rows, pauses })}\n`);
  else process.stdout.write([...rows.map(describeRow), ...pauses.map(describePauses)].join(''));
} finally {
  await rm(scratch, { recursive: true });
}

function describeRow(row: Row): string {
  return `${describeFio(`${row.device}, ${row.path}, ${row.case}`, row)}\n`;
}

function describePauses({ kind, snapshots, pauseP50, pauseMax, fork }: Pauses): string {
  return (
    `${kind} layer, ${snapshots} snapshots while fio writes: without the flush, writes waited ` +
    `p50 ${pauseP50.toFixed(1)} ms, max ${pauseMax.toFixed(1)} ms; fork ${fork.toFixed(1)} ms\n`
  );
}
