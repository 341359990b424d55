/**
 * How fast is a writable layer written? 4 KiB writes at random places, no flush in between: through
 * the device on the main thread, and by SharedUpper as a front end's worker does; then reads of what
 * was written, the flush, a snapshot and a fork of the device, and opening the layer again.
 *
 *   node bench/upper-write.ts [--writes 200000] [--disk-gib 8] [--folder DIR] [--json]
 *
 * The layer is in DIR (the system's temporary folder by default), so the flush measures its disk.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '../src/base/clock.ts';
import { silentLogger } from '../src/base/log.ts';
import { forkConfig } from '../src/device/snapshot-config.ts';
import { createTapMap } from '../src/device/tap.ts';
import { WritableDevice } from '../src/device/writable-device.ts';
import { createUpper } from '../src/image/lsmt/create-upper.ts';
import type { UpperKind } from '../src/image/lsmt/upper-map.ts';
import { openWritableUpper, type WritableUpper } from '../src/image/lsmt/writable-upper.ts';
import { emptyStack, type Stack } from '../src/image/stack.ts';
import { randomOf } from './support/boot-reads.ts';
import { formatTable, machineFacts } from './support/report.ts';

const { values } = parseArgs({
  options: {
    writes: { type: 'string', default: '200000' },
    'disk-gib': { type: 'string', default: '8' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const BLOCK_BYTES = 4096;
const WRITES = Number(values.writes);
const DISK_BYTES = Number(values['disk-gib']) * 2 ** 30;

interface Row {
  kind: UpperKind;
  sharedPerSecond: number;
  devicePerSecond: number;
  readsPerSecond: number;
  flushMs: number;
  pauseMs: number;
  pauseFlushMs: number;
  snapshotMs: number;
  forkMs: number;
  reopenMs: number;
}

const folder = mkdtempSync(join(values.folder, 'replaybd-upper-write-'));
try {
  const rows: Row[] = [];
  for (const kind of ['append', 'sparse'] as const) rows.push(await measure(kind));
  const facts = { ...machineFacts(), writes: WRITES, diskBytes: DISK_BYTES };
  if (values.json) {
    process.stdout.write(`${JSON.stringify({ bench: 'upper-write', facts, rows })}\n`);
  } else {
    process.stdout.write(formatTable(rows.map((row) => ({ ...row }))));
  }
} finally {
  rmSync(folder, { recursive: true });
}

async function measure(kind: UpperKind): Promise<Row> {
  const paths = pathsOf(kind);
  const configPath = join(folder, `${kind}.v1.json`);
  // No layer is below: the one that the configuration has to name is not opened here.
  writeFileSync(configPath, JSON.stringify({ lowers: [{ file: 'none' }], upper: paths }));
  await createUpper({ ...paths, kind, virtualSizeBytes: DISK_BYTES });
  const upper = await openWritableUpper(paths);
  const device = deviceOf(emptyStack(DISK_BYTES), upper, configPath);
  const offsets = randomOffsets(1);
  const block = Buffer.alloc(BLOCK_BYTES, 7);

  const shared = await perSecond(() => {
    for (const offset of offsets) if (!upper.shared.write(offset, block)) throw new Error('full');
  });
  const into = Buffer.alloc(BLOCK_BYTES);
  const reads = await perSecond(() => {
    for (const offset of offsets) if (!device.readCached(offset, into)) throw new Error('a miss');
  });
  const flushMs = await timeOf(() => device.writer.flush());
  const direct = await perSecond(async () => {
    for (const offset of randomOffsets(2)) await device.writer.write(offset, block, false);
  });
  await device.writer.flush();
  let report = { pauseMs: 0, flushMs: 0 };
  const next = pathsOf(`${kind}-next`);
  const snapshotMs = await timeOf(async () => {
    report = await device.snapshot(next);
  });
  const forkedAtMs = performance.now();
  const forked = await fork(kind, configPath, device.stack);
  const forkMs = performance.now() - forkedAtMs;
  await forked.close();
  await device.close();
  await createUpper({ ...pathsOf(`${kind}-again`), kind, virtualSizeBytes: DISK_BYTES });
  let again = await openWritableUpper(pathsOf(`${kind}-again`));
  for (const offset of offsets) again.shared.write(offset, block);
  await again.close();
  const reopenMs = await timeOf(async () => {
    again = await openWritableUpper(pathsOf(`${kind}-again`));
  });
  await again.close();
  return {
    kind,
    sharedPerSecond: shared,
    devicePerSecond: direct,
    readsPerSecond: reads,
    flushMs,
    pauseMs: report.pauseMs,
    pauseFlushMs: report.flushMs,
    snapshotMs,
    forkMs,
    reopenMs,
  };
}

/** A second device on the same stack, ready to be read and written. */
async function fork(kind: UpperKind, configPath: string, stack: Stack): Promise<WritableDevice> {
  const paths = pathsOf(`${kind}-fork`);
  const forkPath = join(folder, `${kind}-fork.v1.json`);
  await forkConfig(configPath, forkPath, { ...paths, kind, virtualSizeBytes: DISK_BYTES });
  return deviceOf(stack, await openWritableUpper(paths), forkPath);
}

function deviceOf(stack: Stack, upper: WritableUpper, configPath: string): WritableDevice {
  return new WritableDevice({
    id: 'bench',
    stack,
    tap: createTapMap(1),
    upper,
    configPath,
    clock: systemClock,
    log: silentLogger,
    observer: { onMiss: () => 'demand', onMissDone: () => undefined },
  });
}

function pathsOf(name: string): { data: string; index: string } {
  return { data: join(folder, `${name}.data`), index: join(folder, `${name}.index`) };
}

function randomOffsets(seed: number): Float64Array {
  const next = randomOf(seed);
  const blocks = DISK_BYTES / BLOCK_BYTES;
  return Float64Array.from({ length: WRITES }, () => Math.floor(next() * blocks) * BLOCK_BYTES);
}

async function perSecond(work: () => void | Promise<void>): Promise<number> {
  return Math.round((WRITES * 1000) / (await timeOf(work)));
}

async function timeOf(work: () => void | Promise<void>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}
