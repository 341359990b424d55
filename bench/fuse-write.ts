/**
 * How fast are writes through FUSE and a loop device? A raw disk in memory shows the front end alone.
 * Needs root and fio.
 *
 *   node bench/fuse-write.ts [--mib 256] [--seconds 3] [--workers 2] [--json]
 */
import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { BlockDevice } from '../src/device/block-device.ts';
import { startFuse, type FuseOptions } from '../src/frontend/fuse/fuse-frontend.ts';
import { fusePermitted } from '../src/frontend/fuse/permitted.ts';
import { describeFio, measureFio, type FioCase, type FioResult } from './support/fio.ts';
import { MemoryDisk } from './support/fuse-disk.ts';

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

interface Row extends FioResult {
  device: string;
  path: 'loop' | 'file';
  case: string;
}

const cases: readonly FioCase[] = [
  { name: 'random 4 KiB, depth 1', rw: 'randwrite', bs: '4k', depth: 1 },
  { name: 'random 4 KiB, depth 16', rw: 'randwrite', bs: '4k', depth: 16 },
  { name: 'sequential 128 KiB, depth 4', rw: 'write', bs: '128k', depth: 4 },
  { name: 'random 4 KiB, flush every 16', rw: 'randwrite', bs: '4k', depth: 1, flushEvery: 16 },
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
  const disk = new MemoryDisk('raw', sizeBytes, { writable: true, sharesWrites });
  return await measureAll(name, disk, { reader: disk.reader });
}

const permission = fusePermitted();
if (!permission.ok) throw new Error(permission.reason);
const scratch = mkdtempSync(join(tmpdir(), 'replaybd-bench-'));
try {
  const rows = [...(await measureRaw(true)), ...(await measureRaw(false))];
  if (values.json) process.stdout.write(`${JSON.stringify({ workers: values.workers, rows })}\n`);
  for (const row of values.json ? [] : rows) {
    process.stdout.write(`${describeFio(`${row.device}, ${row.path}, ${row.case}`, row)}\n`);
  }
} finally {
  await rm(scratch, { recursive: true });
}
