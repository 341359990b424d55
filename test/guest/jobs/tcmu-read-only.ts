import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { DeviceStats } from '../../../src/cli/control-socket.ts';
import { controlRequest } from '../../../src/daemon/control-client.ts';
import { decodeTrace } from '../../../src/trace/decode.ts';
import type { Trace } from '../../../src/trace/trace.ts';
import { Attached } from '../../support/attached.ts';
import { serveRegistry } from '../../support/cli.ts';
import { output } from '../../support/programs.ts';
import type { Scratch } from '../../support/scratch.ts';
import { sha256OfFile } from '../../support/test-image.ts';
import { compareTree, job, nothingIsLeft, step } from './support.ts';

// Arguments: the folder of a registry, the digest of its image's disk, and the folders that it was
// built from. The first run records, the second replays: the same reads through an empty cache.
//
// The second run is recorded too, and the two traces are compared, sector by sector with the layer
// that serves it, as where one record ends and the next begins depends on time:
//
//   attached          the kernel looks for partitions; in the first trace only, as the second
//                     recording begins after that, so these sectors are left out of the comparison
//   mounted           file system structures
//   one file a time   without read-ahead, so that one read waits for the other: the same order
//   every file        with read-ahead, whose requests overtake each other: the same set

const [registryFolder, sha256, ...rootfs] = process.argv.slice(2);

/** How many records there were after each part of a run. */
interface RunParts {
  attached: number;
  mounted: number;
  inOrder: number;
  all: number;
}

await job(async (scratch) => {
  const reference = `${await serveRegistry(scratch, registryFolder)}/e2e/image:v1`;
  const first = await runOnce(scratch, reference, 'record');
  const second = await runOnce(scratch, reference, 'replay');
  step('compare the traces');
  compareRuns(first, second);
});

async function runOnce(
  scratch: Scratch,
  reference: string,
  expected: 'record' | 'replay',
): Promise<{ parts: RunParts; trace: Trace }> {
  step(`attach, ${expected}`);
  const id = `image-${expected}`;
  const attached = await Attached.start(scratch, [
    ...[reference, '--frontend', 'tcmu', '--id', id],
    ...['--cache', scratch.path(expected), '--trace-dir', scratch.path('traces')],
  ]);
  const { mode, path, control } = attached.ready;
  assert.equal(mode, expected);
  assert.match(path, /^\/dev\/sd[a-z]$/);
  const ask = async (method: 'GET' | 'POST', verb: string, body?: object): Promise<unknown> =>
    await controlRequest(control, method, `/v1/devices/${id}/${verb}`, body);
  const records = async (): Promise<number> =>
    ((await ask('GET', 'stats')) as DeviceStats).trace?.records ?? 0;

  const again = scratch.path('again.trace');
  if (expected === 'replay') await ask('POST', 'record/start', { trace: again });
  const parts: RunParts = { attached: await records(), mounted: 0, inOrder: 0, all: 0 };
  const mount = scratch.path(`mount-${expected}`);
  mkdirSync(mount);
  await output('mount', '-o', 'ro,noload', path, mount);
  parts.mounted = await records();
  step('read file by file');
  const readAhead = `/sys/block/${basename(path)}/queue/read_ahead_kb`;
  const readAheadKiB = readFileSync(readAhead, 'utf8');
  writeFileSync(readAhead, '0');
  for (const file of filesIn(rootfs[1])) readFileSync(join(mount, file));
  parts.inOrder = await records();
  writeFileSync(readAhead, readAheadKiB);
  step('compare every file');
  for (const folder of rootfs) await compareTree(folder, mount);
  parts.all = await records();
  if (expected === 'replay') await ask('POST', 'record/stop');
  if (expected === 'replay') {
    step('compare the disk');
    assert.equal(await sha256OfFile(path), sha256);
  }
  await output('umount', mount);
  step('detach');
  const report = await attached.detach();
  console.log(JSON.stringify(report));
  assert.equal(report.quality.missErrors, 0);
  nothingIsLeft();
  assert.ok(report.trace !== null);
  return { parts, trace: decodeTrace(readFileSync(report.trace.path)) };
}

/** Paths of a folder's files, below it, sorted. */
function filesIn(folder: string): string[] {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile());
  return files.map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1)).sort();
}

type Run = Awaited<ReturnType<typeof runOnce>>;

function compareRuns(first: Run, second: Run): void {
  assert.deepEqual(second.trace.image, first.trace.image);
  const early = new Set(sectorsOf(first.trace, 0, first.parts.attached));
  const between = ({ trace }: Run, start: number, end: number): string[] =>
    sectorsOf(trace, start, end).filter((sector) => !early.has(sector));
  const inOrder = (run: Run): string[] => between(run, run.parts.mounted, run.parts.inOrder);
  const all = (run: Run): string[] => between(run, run.parts.attached, run.parts.all).sort();
  console.log(JSON.stringify({ first: first.parts, second: second.parts }));
  assert.ok(inOrder(first).length > 0 && all(first).length > inOrder(first).length);
  assert.deepEqual(inOrder(second), inOrder(first));
  assert.deepEqual(all(second), all(first));
}

/** The sectors of records [start, end), each with its layer. */
function sectorsOf({ records }: Trace, start: number, end: number): string[] {
  const sectors: string[] = [];
  for (let record = start; record < end; record += 1) {
    for (let i = 0; i < records.sectors[record]; i += 1) {
      sectors.push(`${records.layer[record]}:${records.lba[record] + i}`);
    }
  }
  return sectors;
}
