/**
 * How fast are reads of local bytes through FUSE and a loop device? A raw disk in memory shows the
 * front end alone; an image (LSMT in LZ4 ZFile, 4 KiB blocks, mapped from a file) the whole way.
 * Data: this machine's shared libraries. Needs root and fio.
 *
 *   node bench/fuse.ts [--mib 128] [--seconds 3] [--workers 2] [--json]
 */
import { globSync, mkdtempSync, readFileSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../src/base/clock.ts';
import { SECTOR_BYTES } from '../src/base/limits.ts';
import { silentLogger } from '../src/base/log.ts';
import { openLocalBlob } from '../src/blob/local-blob.ts';
import { StackDevice } from '../src/device/device.ts';
import { createTapMap } from '../src/device/tap.ts';
import { startFuse, type FuseOptions } from '../src/frontend/fuse/fuse-frontend.ts';
import { fusePermitted } from '../src/frontend/fuse/permitted.ts';
import { FileSink } from '../src/image/byte-sink.ts';
import { writeCommittedLayer } from '../src/image/lsmt/writer.ts';
import { openStack } from '../src/image/stack.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import type { BlockDevice } from '../src/device/block-device.ts';
import { describeFio, measureFio, type FioCase, type FioResult } from './support/fio.ts';
import { MemoryDisk } from './support/fuse-disk.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '128' },
    seconds: { type: 'string', default: '3' },
    workers: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 1024 * 1024;
const sizeBytes = Number(values.mib) * MIB;
const size = { sizeBytes, seconds: Number(values.seconds) };

interface Row extends FioResult {
  device: string;
  path: 'loop' | 'file';
  case: string;
}

const cases: readonly FioCase[] = [
  { name: 'random 4 KiB, depth 1', rw: 'randread', bs: '4k', depth: 1 },
  { name: 'random 4 KiB, depth 16', rw: 'randread', bs: '4k', depth: 16 },
  { name: 'sequential 128 KiB, depth 4', rw: 'read', bs: '128k', depth: 4 },
];

async function measureAll(name: string, device: BlockDevice, options: FuseOptions): Promise<Row[]> {
  const rows: Row[] = [];
  const workers = Number(values.workers);
  const frontend = await startFuse(device, { ...options, directory: scratch, workers });
  try {
    for (const test of cases) {
      for (const [path, target] of [
        ['loop', frontend.path],
        ['file', frontend.filePath],
      ] as const) {
        rows.push({
          device: name,
          path,
          case: test.name,
          ...(await measureFio(target, test, size)),
        });
      }
    }
  } finally {
    await frontend.close();
  }
  return rows;
}

function sampleData(): Buffer {
  const parts: Buffer[] = [];
  let gathered = 0;
  for (const path of globSync('/usr/lib/**/*.so*')) {
    if (gathered >= sizeBytes) break;
    const part = readFileSync(path);
    parts.push(part);
    gathered += part.length;
  }
  return Buffer.concat(parts, sizeBytes);
}

async function writeImage(path: string, data: Buffer): Promise<void> {
  const file = await open(path, 'wx');
  const zfile = new ZFileWriter(new FileSink(file));
  const extent = { lba: 0, sectors: sizeBytes / SECTOR_BYTES, data };
  await writeCommittedLayer(zfile, { virtualSizeBytes: sizeBytes }, [extent]);
  await zfile.finish();
  await file.close();
}

async function measureImage(data: Buffer): Promise<Row[]> {
  const path = join(scratch, 'layer');
  await writeImage(path, data);
  const blob = await openLocalBlob(path);
  try {
    const stack = await openStack([blob]);
    const device = new StackDevice({
      id: 'image',
      stack,
      shared: { stack: stack.map, tap: createTapMap(Number(values.workers) + 1) },
      clock: systemClock,
      log: silentLogger,
      observer: { onMiss: () => 'demand', onMissDone: () => undefined },
    });
    return await measureAll('image', device, {});
  } finally {
    await blob.close();
  }
}

async function measureRaw(data: Buffer): Promise<Row[]> {
  const disk = new MemoryDisk('raw', sizeBytes);
  disk.bytes.set(data);
  return measureAll('raw', disk, { reader: disk.reader });
}

const permission = fusePermitted();
if (!permission.ok) throw new Error(permission.reason);
const scratch = mkdtempSync(join(tmpdir(), 'replaybd-bench-'));
try {
  const data = sampleData();
  const rows = [...(await measureRaw(data)), ...(await measureImage(data))];
  if (values.json) process.stdout.write(`${JSON.stringify({ workers: values.workers, rows })}\n`);
  else
    for (const row of rows)
      process.stdout.write(`${describeFio(`${row.device}, ${row.path}, ${row.case}`, row)}\n`);
} finally {
  await rm(scratch, { recursive: true });
}
