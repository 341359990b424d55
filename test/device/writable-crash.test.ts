// Goal: a process that is killed loses nothing that was acknowledged, a machine that stops nothing that
// was flushed, neither ever shows a sector as it was before that, and the stack is the old or the new
// one when the process is killed while a snapshot is taken.
// Method: a child process changes a device and says what it begins and what is flushed; it is killed
// at random moments, or after each step of a snapshot. Every sector must then be as the last operation
// that ended left it, or as the one that had begun made it. The same device goes through several
// crashes, some of which the machine seems not to have survived: the boot id of its files is another.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { writeCommittedLayer } from '../../src/image/lsmt/writer.ts';
import type { UpperKind } from '../../src/image/lsmt/upper-map.ts';
import type { SnapshotStep } from '../../src/device/snapshot.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';
import { randomOf } from '../../bench/support/boot-reads.ts';
import { kinds, newUpper, pathsIn, pretendReboot, testFolder } from '../image/upper-support.ts';
import { openConfigured } from './crash-child.ts';
import { crashOps, DISK_SECTORS, sectorsOf, writerOf } from './crash-ops.ts';
import { readAsFrontends } from './writable-support.ts';

const DISK_BYTES = DISK_SECTORS * SECTOR_BYTES;
const CRASHES = 6;
const STEPS: SnapshotStep[] = [
  ...(['flushed', 'prepared', 'created', 'shut-out'] as const),
  ...(['switched', 'sealed', 'configured', 'cleaned'] as const),
];
/** What the layer below was written by. */
const BELOW = -1;

/** An image with one layer that has every other group of sectors, and an empty writable layer. */
async function makeImage(folder: string, kind: UpperKind): Promise<void> {
  const sink = new MemorySink();
  const extents = [];
  for (let lba = 0; lba < DISK_SECTORS; lba += 200) {
    const op = { number: BELOW, kind: 'write' as const, lba, sectors: 100 };
    const sectors = Math.min(100, DISK_SECTORS - lba);
    extents.push({ lba, sectors, data: sectorsOf({ ...op, sectors }) });
  }
  await writeCommittedLayer(sink, { virtualSizeBytes: DISK_BYTES }, extents);
  const file = join(folder, 'base.lsmt');
  writeFileSync(file, sink.bytes);
  const upper = pathsIn(folder, 'upper0');
  writeFileSync(join(folder, 'config.v1.json'), JSON.stringify({ lowers: [{ file }], upper }));
  await (await newUpper(upper, kind, DISK_BYTES)).close();
}

/** Runs the child until it is killed; the last operation it began and the last that was flushed. */
async function runChild(
  folder: string,
  seed: number,
  firstOp: number,
  death: { afterMs: number } | { step: SnapshotStep },
): Promise<{ begun: number; flushed: number }> {
  const script = new URL('./crash-child.ts', import.meta.url).pathname;
  const step = 'step' in death ? death.step : '';
  const child = spawn(process.execPath, [script, folder, String(seed), String(firstOp), step], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  const ended = once(child, 'close');
  const working = once(child.stdout, 'data');
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  if ('afterMs' in death) {
    await working;
    await sleep(death.afterMs);
    child.kill('SIGKILL');
  }
  const [, signal] = (await ended) as [number | null, string | null];
  assert.equal(signal, 'SIGKILL', 'the child ended by itself');
  let begun = firstOp - 1;
  let flushed = 0;
  // A line that was cut off tells nothing.
  for (const line of output.split('\n').slice(0, -1)) {
    if (line.startsWith('f')) flushed = Number(line.slice(1));
    else begun = Number(line);
  }
  return { begun, flushed };
}

/** Of each sector, the operations that may have written it. */
type Possible = Set<number>[];

function initially(): Possible {
  return Array.from({ length: DISK_SECTORS }, (_, lba) => new Set([lba % 200 < 100 ? BELOW : 0]));
}

function apply(possible: Possible, seed: number, first: number, flushed: number, begun: number) {
  for (const { number, kind, lba, sectors } of crashOps(seed, first)) {
    if (number > begun) return;
    if (kind !== 'write' && kind !== 'discard') continue;
    for (let sector = lba; sector < lba + sectors; sector += 1) {
      if (number <= flushed) possible[sector].clear();
      possible[sector].add(kind === 'write' ? number : 0);
    }
  }
}

/** Compares the device with what is possible, which then is what is there. */
async function checkDevice(folder: string, possible: Possible): Promise<void> {
  const device = await openConfigured(join(folder, 'config.v1.json'));
  const disk = await readAsFrontends(device, 0, DISK_SECTORS);
  await device.close();
  for (const [lba, numbers] of possible.entries()) {
    const found = writerOf(disk.subarray(lba * SECTOR_BYTES, (lba + 1) * SECTOR_BYTES));
    assert.ok(numbers.has(found), `sector ${lba}: ${found}, not one of ${[...numbers].join()}`);
    possible[lba] = new Set([found]);
  }
}

for (const kind of kinds) {
  test(`${kind}: killed at random, again and again`, async (t) => {
    const folder = testFolder(t);
    await makeImage(folder, kind);
    const random = randomOf(process.pid);
    const seed = process.pid;
    const possible = initially();
    let next = 1;
    for (let crash = 0; crash < CRASHES; crash += 1) {
      const { begun, flushed } = await runChild(folder, seed, next, { afterMs: random() * 400 });
      t.diagnostic(`operations ${next} to ${begun}, flushed up to ${flushed}`);
      const hasRebooted = crash % 2 === 1;
      if (hasRebooted) pretendReboot(folder);
      // One begins when the one before it was acknowledged.
      apply(possible, seed, next, hasRebooted ? flushed : begun - 1, begun);
      await checkDevice(folder, possible);
      next = begun + 1;
    }
  });
}

test('killed after each step of a snapshot, the stack is the old or the new one', async (t) => {
  const cases = STEPS.flatMap((step) => kinds.map((kind) => ({ step, kind })));
  const root = testFolder(t);
  // Two at a time: each is a process that starts, and little else.
  const crash = async ({ step, kind }: (typeof cases)[number]): Promise<void> => {
    const folder = join(root, `${step}-${kind}`);
    mkdirSync(folder);
    await makeImage(folder, kind);
    const possible = initially();
    const { begun, flushed } = await runChild(folder, 1, 900, { step });
    assert.equal(begun, 997);
    assert.ok(flushed < begun);
    apply(possible, 1, 900, begun - 1, begun);
    await checkDevice(folder, possible);
    const config = JSON.parse(readFileSync(join(folder, 'config.v1.json'), 'utf8')) as {
      lowers: unknown[];
      upper: { data: string };
    };
    const isNew = STEPS.indexOf(step) >= STEPS.indexOf('switched');
    assert.equal(config.lowers.length, isNew ? 2 : 1, step);
    const [old, next] = [pathsIn(folder, 'upper0'), pathsIn(folder, 'upper997')];
    assert.equal(config.upper.data, isNew ? next.data : old.data);
    assert.equal(existsSync(next.data), isNew, step);
    assert.equal(existsSync(old.index), !isNew, step);
    assert.equal(existsSync(join(folder, 'config.v1.json.snapshot')), false);
  };
  for (let at = 0; at < cases.length; at += 2)
    await Promise.all(cases.slice(at, at + 2).map(crash));
});
