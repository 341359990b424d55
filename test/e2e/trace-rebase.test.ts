import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { packageRoot } from '../../src/base/package-root.ts';
import { SparseBitmap } from '../../src/base/sparse-bitmap.ts';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import { controlRequest } from '../../src/daemon/control-client.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import type { FileReport } from '../../src/trace/file-report.ts';
import type { RebaseFacts } from '../../src/trace/rebase.ts';
import type { TraceRecords } from '../../src/trace/trace.ts';
import { noise } from '../image/ext4-tree.ts';
import { Attached } from '../support/attached.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { output } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';

// Goal: after an application's layer was rebuilt, the old image's trace, rebased, covers at least 80 %
// of what a start on the new image reads; and a trace is told by the files that were really read.
// Method: a base layer of real packages, and an application of others; in the second version files are
// changed, added and removed, and everything moves. A real program loads the packages from each image,
// through FUSE, a loop device and ext4.

const skip = needs('root', 'mke2fs');
const fixture = new Scratch();
let registry = '';

const BASE = ['undici', 'es-toolkit'];
const APP = ['prettier', 'commander', 'acorn', 'caniuse-lite'];
const PROGRAM = `
  const load = (name) => require(process.argv[1] + '/modules/' + name);
  ['undici', 'es-toolkit', 'prettier', 'commander', 'acorn'].forEach(load);
  load('caniuse-lite').agents;
  load('prettier').format('a  = 1', { parser: 'babel' }).then(console.log);
`;

before(async () => {
  if (skip !== false) return;
  registry = await serveRegistry(fixture, fixture.path('registry'));
  const base = packagesIn('base', BASE);
  const first = packagesIn('app1', APP);
  const second = packagesIn('app2', APP);
  changeApp(join(second, 'modules'));
  await build('v1', [base, first]);
  await build('v2', [base, second]);
  await record('v1');
  await record('v2');
});
after(() => fixture.close());

function packagesIn(name: string, packages: readonly string[]): string {
  const folder = fixture.path(name);
  for (const one of packages) {
    cpSync(join(packageRoot, 'node_modules', one), join(folder, 'modules', one), {
      recursive: true,
    });
  }
  return folder;
}

/** What a new version of an application does to its files. */
function changeApp(modules: string): void {
  mkdirSync(join(modules, 'a-new-package/src'), { recursive: true });
  for (let i = 0; i < 80; i += 1) {
    writeFileSync(join(modules, `a-new-package/src/${i}.js`), noise(`new ${i}`, 3000 + i * 100));
  }
  // As many as were added: the number of entries decides how the file system of all layers is made.
  const regions = join(modules, 'caniuse-lite/data/regions');
  for (const name of readdirSync(regions).slice(0, 82)) rmSync(join(regions, name));
  for (const name of ['acorn/dist/acorn.js', 'prettier/plugins/babel.js', 'commander/index.js']) {
    appendFileSync(join(modules, name), `\n/* ${noise(name, 6000).toString('base64')} */\n`);
  }
  const changed = join(modules, 'prettier/index.cjs');
  writeFileSync(changed, `// another version\n${readFileSync(changed, 'utf8')}`);
}

async function build(tag: string, layers: readonly string[]): Promise<void> {
  const size = ['--virtual-size', String(64 / 1024)];
  const rootfs = layers.flatMap((folder) => ['--rootfs', folder]);
  await cliOutput(fixture, ['image', 'build', '--push', reference(tag), ...size, ...rootfs]);
}

function reference(tag: string): string {
  return `${registry}/e2e/rebase:${tag}`;
}

function traceOf(tag: string): string {
  return fixture.path(`${tag}.trace`);
}

async function record(tag: string): Promise<void> {
  await start(fixture, tag, ['--mode', 'record', '--trace', traceOf(tag)]);
}

/** Runs the program on an image; with a replay, once that has ended. */
async function start(
  scratch: Scratch,
  tag: string,
  mode: readonly string[],
): Promise<AttachmentReport> {
  const mount = scratch.path(`mount-${tag}`);
  mkdirSync(mount, { recursive: true });
  const place = ['--frontend', 'fuse', '--mount', mount, '--cache', 'none'];
  const attached = await Attached.start(scratch, [reference(tag), ...place, ...mode]);
  const { control, id } = attached.ready;
  const stats = async (): Promise<AttachmentReport> =>
    (await controlRequest(control, 'GET', `/v1/devices/${id}/stats`)) as AttachmentReport;
  for (let now = await stats(); now.replay?.end === null; now = await stats());
  assert.equal(await output(process.execPath, '-e', PROGRAM, mount), 'a = 1;\n\n');
  return await attached.detach();
}

function recordsIn(path: string): TraceRecords {
  return decodeTrace(readFileSync(path)).records;
}

/** The part of what some records read that others hold. */
function coverage(wanted: TraceRecords, held: TraceRecords): number {
  const bitmap = new SparseBitmap();
  let all = 0;
  let missing = 0;
  for (let i = 0; i < held.count; i += 1) bitmap.add(held.lba[i], held.sectors[i], () => undefined);
  for (let i = 0; i < wanted.count; i += 1) {
    all += wanted.sectors[i];
    bitmap.add(wanted.lba[i], wanted.sectors[i], (_, count) => (missing += count));
  }
  return 1 - missing / all;
}

function layersOf(path: string): string[] {
  return decodeTrace(readFileSync(path)).image.layers.map(({ digest }) => digest);
}

test('a rebased trace covers the new version', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const [old, now] = [layersOf(traceOf('v1')), layersOf(traceOf('v2'))];
  assert.equal(old[0], now[0], 'the base layer is the same');
  assert.notEqual(old[1], now[1]);
  const output = scratch.path('rebased.trace');
  // Without --from: by the manifest digest that the trace has.
  const args = ['trace', 'rebase', traceOf('v1'), reference('v2'), '-o', output, '--cache', 'none'];
  const facts = await cliJson<RebaseFacts & { output: string }>(scratch, args);
  assert.equal(facts.output, output);
  const wanted = recordsIn(traceOf('v2'));
  const wantedSectors = wanted.sectors.reduce((sum, sectors) => sum + sectors, 0);
  const rebased = coverage(wanted, recordsIn(output));
  const waste = 1 - coverage(recordsIn(output), wanted);
  const byLayer = facts.kept.sectors / wantedSectors;
  t.diagnostic(`coverage ${rebased.toFixed(3)}, of what is kept alone ${byLayer.toFixed(3)}`);
  t.diagnostic(`waste ${waste.toFixed(3)}, ${JSON.stringify(facts)}`);
  assert.ok(rebased >= 0.8, `${rebased}`);
  assert.ok(byLayer < 0.8, `files make a difference: ${byLayer}`);
  assert.ok(waste <= 0.3, `${waste}`);
  assert.ok(facts.kept.sectors > 0 && facts.mapped.sectors > 0);
  assert.ok(facts.staleness > 0 && facts.staleness < 0.6, `${facts.staleness}`);
  const { quality } = await start(scratch, 'v2', ['--mode', 'replay', '--trace', output]);
  t.diagnostic(`coverage of a replay ${quality.coverage}`);
  assert.ok(quality.coverage !== null && quality.coverage >= 0.8, `${quality.coverage}`);
});

test('the image itself is where everything is kept', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const output = scratch.path('same.trace');
  const args = ['trace', 'rebase', traceOf('v1'), reference('v1'), '-o', output, '--cache', 'none'];
  const facts = await cliJson<RebaseFacts>(scratch, args);
  assert.deepEqual([facts.staleness, facts.mapped.records, facts.dropped.records], [0, 0, 0]);
  assert.deepEqual(recordsIn(output), recordsIn(traceOf('v1')));
  assert.deepEqual(
    decodeTrace(readFileSync(output)).plan,
    decodeTrace(readFileSync(traceOf('v1'))).plan,
    'the plan is built as a recording builds it',
  );
});

test('an older image that is another one is refused', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const output = scratch.path('refused.trace');
  const { code, stderr } = await cli(scratch, [
    ...['trace', 'rebase', traceOf('v1'), reference('v2'), '-o', output, '--cache', 'none'],
    ...['--from', reference('v2')],
  ]);
  assert.equal(code, 1);
  assert.match(stderr, /expected the image of the trace, found one of other layers/);
});

test('a trace is told by file', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const command = ['trace', 'files', traceOf('v1'), reference('v1'), '--cache', 'none'];
  const report = await cliJson<FileReport>(scratch, [...command, '--limit', '10000']);
  const named = new Map(report.files.map((file) => [file.name, file]));
  const first = named.get('/modules/undici/index.js');
  const later = named.get('/modules/acorn/dist/acorn.js');
  assert.ok(first !== undefined && later !== undefined);
  assert.deepEqual([first.share, later.share], [1, 1], 'small files are read whole');
  assert.ok(first.firstUs < later.firstUs, 'in the order in which the program loads them');
  assert.deepEqual(
    [first.layers, later.layers].map((layers) => layers.map(({ layer }) => layer)),
    [[0], [1]],
  );
  assert.ok(!named.has('/modules/prettier/plugins/flow.js'), 'what was not loaded was not read');
  assert.ok(named.has('<directory> /modules/prettier') && named.has('<inode table>'));
  const told = report.files.reduce((sum, { bytes }) => sum + bytes, 0);
  assert.equal(told, report.bytes, 'every byte is told once');
  const { records } = decodeTrace(readFileSync(traceOf('v1')));
  assert.equal(
    report.bytes,
    records.sectors.reduce((sum, sectors) => sum + sectors * SECTOR_BYTES, 0),
  );
  const unknown = report.kinds.find(({ kind }) => kind === 'unknown')?.bytes ?? 0;
  assert.ok(unknown <= report.bytes / 50, `${unknown} of ${report.bytes} bytes are of no file`);
  const bySize = await cliOutput(scratch, [...command, '--sort', 'size', '--limit', '3']);
  const [largest] = [...report.files].sort((a, b) => b.bytes - a.bytes);
  assert.ok(bySize.includes(largest.name), bySize);
  assert.match(bySize, /and \d+ more/);
});

test('a trace is told by which files a replay brings late', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const command = ['trace', 'files', traceOf('v1'), reference('v1'), '--cache', 'none'];
  const slow = ['--bandwidth', '1mbit', '--rtt', '50ms', '--sort', 'wait'];
  const report = await cliJson<FileReport>(scratch, [...command, ...slow, '--limit', '10000']);
  const late = report.files.filter(({ simulated }) => (simulated?.lateBytes ?? 0) > 0);
  assert.ok(late.length > 0);
  const waits = report.files.map(({ simulated }) => simulated?.waitUs ?? -1);
  assert.deepEqual(
    waits,
    [...waits].sort((a, b) => b - a),
  );
  const sumUs = waits.reduce((sum, waitUs) => sum + waitUs, 0);
  assert.ok(Math.abs(sumUs - (report.simulatedWaitUs ?? 0)) < 1, `${sumUs} us`);
  const lazy = [...command, ...slow, '--policy', 'none', '--limit', '10000'];
  const unaided = await cliJson<FileReport>(scratch, lazy);
  assert.ok(unaided.files.every(({ simulated }) => simulated?.lateBytes === 0));
  assert.ok(unaided.files.some(({ simulated }) => (simulated?.demandBytes ?? 0) > 0));
  assert.ok((unaided.simulatedWaitUs ?? 0) > (report.simulatedWaitUs ?? 0));
  const text = await cliOutput(scratch, [...command, ...slow, '--limit', '3']);
  assert.match(
    text,
    / s waited in the simulation\n[^]* waited +late +demand +simulated +layers +file/,
  );
});

test('traces of two versions are compared by file, each in its image', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const command = ['tui', traceOf('v1'), traceOf('v2'), '--view', '6', '--cache', 'none'];
  const images = ['--image', reference('v1'), '--image', reference('v2')];
  const text = await cliOutput(scratch, [...command, ...images]);
  assert.match(text, /^ \d+ files, by changed$/m);
  const cellsOf = (path: string): string[] => {
    const row = text.split('\n').find((one) => one.endsWith(` ${path}`)) ?? '';
    return row.trim().split(/ {2,}/).slice(0, 4);
  };
  const [kept, , lost, added] = cellsOf('/modules/acorn/dist/acorn.js');
  assert.equal(kept, '-', 'of a layer that was rebuilt, nothing is the same');
  assert.ok(lost !== '-' && added !== '-', `${lost} lost, ${added} new`);
  const base = cellsOf('/modules/undici/index.js');
  assert.ok(base[0] !== '-' && base[2] === '-' && base[3] === '-', base.join());
});
