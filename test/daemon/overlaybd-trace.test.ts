import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { Attachment, type AttachmentOptions } from '../../src/daemon/attachment.ts';
import { playReads } from '../../src/daemon/player.ts';
import type { ListedRead } from '../../src/daemon/read-list.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { stackDisk } from '../../src/daemon/stack-disk.ts';
import { openFileSystem } from '../../src/image/fs/open.ts';
import { findNode } from '../../src/image/fs/walk.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { unpackAccelerationLayer } from '../../src/trace/overlaybd/acceleration-layer.ts';
import { decodeOverlaybdTrace } from '../../src/trace/overlaybd/format.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { cli, cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { random } from '../trace/synthetic.ts';

// Goal: one recording says the same to a replay in every form it can take: our trace, overlaybd's, an
// acceleration layer with either, a recordTracePath; and a list of paths fetches the files it names.
// Method: an image in a registry; each form is replayed to its end with an empty cache, and what is
// local then of the recorded reads' bytes is what the form covers.

const skip = needs('mke2fs');
const fixture = new Scratch();
const workload = describeWorkload(['test'], []);
let image: TestImage;
let reads: ListedRead[] = [];
let config: Record<string, unknown> = {};

before(async () => {
  if (skip !== false) return;
  const url = await serveRegistry(fixture, fixture.path('registry'));
  image = await makeTestImage(fixture, url);
  const next = random(7);
  reads = Array.from({ length: 150 }, () => {
    const length = 4096 * (1 + Math.floor(next() * 16));
    const lastOffset = image.virtualSizeBytes - length;
    return { offset: Math.floor((next() * lastOffset) / 512) * 512, length, thinkUs: 0 };
  });
  config = JSON.parse(
    await cliOutput(fixture, ['image', 'config', image.reference]),
  ) as object as Record<string, unknown>;
  await withDevice({ target: image.reference, mode: 'record', tracePath: recorded() }, play);
  for (const [command, output] of [
    [['trace', 'export', '--overlaybd', recorded()], fixture.path('exported')],
    [['trace', 'pack-layer', image.reference, recorded()], fixture.path('layer.tar')],
  ] as const) {
    const target = command[1] === 'export' ? ['--image', image.reference] : [];
    await cliOutput(fixture, [...command, ...target, '-o', output, '--cache', 'none']);
  }
});
after(() => fixture.close());

function recorded(): string {
  return fixture.path('recorded.trace');
}

/** Opens a device on an empty cache and without traces of its own, for as long as `work` takes. */
async function withDevice<T>(
  options: Omit<AttachmentOptions, 'id' | 'workload'>,
  work: (device: Attachment) => Promise<T>,
): Promise<T> {
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 30,
    traceFolder: fixture.path('no-traces'),
    log: createLogger({ level: 'silent' }),
  });
  try {
    const device = await Attachment.open(runtime, { id: 'test', workload, ...options });
    try {
      return await work(device);
    } finally {
      await device.close();
    }
  } finally {
    await runtime.close();
  }
}

function play({ device }: Attachment): Promise<unknown> {
  return playReads({ device, reads });
}

/** The share of the recorded reads' bytes that is local before they are made. */
function coverage({ stack }: Attachment): number {
  const sums = { local: 0, all: 0 };
  for (const { offset, length } of reads) {
    for (const piece of stack.locate(offset / 512, length / 512)) {
      const range = stack.blobRangeOf(piece);
      sums.all += range.length;
      if (stack.layers[piece.layer].blob.has(range.offset, range.length))
        sums.local += range.length;
    }
  }
  return sums.local / sums.all;
}

/** What of the recorded reads a form covers, once all of it was replayed. */
async function coverageOf(target: string, tracePath?: string): Promise<number> {
  const given = tracePath === undefined ? {} : { tracePath };
  return await withDevice({ target, mode: 'replay', ...given }, async (device) => {
    assert.equal(device.mode, 'replay');
    assert.ok(device.replay !== null);
    assert.equal(await device.replay.finished, 'complete');
    return coverage(device);
  });
}

/** A config.v1.json of the image in its registry, with some keys changed. */
function writeConfig(scratch: Scratch, changes: Record<string, unknown>): string {
  const path = scratch.path('changed.v1.json');
  writeFileSync(path, JSON.stringify({ ...config, ...changes }));
  return path;
}

function lowers(): unknown[] {
  assert.ok(Array.isArray(config.lowers));
  return config.lowers as unknown[];
}

test('every form of a recording covers what was recorded', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const lazy = await withDevice({ target: image.reference, mode: 'off' }, async (device) =>
    coverage(device),
  );
  assert.ok(lazy < 0.5, `opening alone covers ${lazy}`);
  const ours = await coverageOf(image.reference, recorded());
  assert.ok(ours > 0.99, `our trace covers ${ours}`);

  const exported = await coverageOf(image.reference, fixture.path('exported'));
  assert.ok(Math.abs(exported - ours) <= 0.01, `overlaybd's covers ${exported}`);

  const tagged = image.reference.replace(':v1', ':fast');
  const args = ['trace', 'pack-layer', image.reference, recorded(), '--cache', 'none'];
  const packed = await cliJson<{ output: null; layer: string; manifest: string }>(scratch, [
    ...args,
    '--push',
    tagged,
  ]);
  assert.equal(packed.output, null);
  assert.equal(packed.layer, digestOf(readFileSync(fixture.path('layer.tar'))));
  const again = await cliJson<{ manifest: string }>(scratch, [...args, '--push', tagged]);
  assert.equal(again.manifest, packed.manifest, 'packing is reproducible');
  const layer = await coverageOf(tagged);
  assert.ok(Math.abs(layer - ours) <= 0.01, `the acceleration layer covers ${layer}`);

  const files = unpackAccelerationLayer(readFileSync(fixture.path('layer.tar')), 'layer.tar');
  assert.deepEqual(files.trace, readFileSync(fixture.path('exported')));
  assert.deepEqual(files.msgpack, readFileSync(recorded()));
  const file = fixture.path('layer.tar');
  const packedConfig = { accelerationLayer: true, lowers: [...lowers(), { file }] };
  const local = await coverageOf(writeConfig(scratch, packedConfig));
  assert.ok(Math.abs(local - ours) <= 0.01, `the layer's tar covers ${local}`);
  // As a snapshotter unpacks it, and as overlaybd's own tools make it: with their trace alone.
  const dir = scratch.path('fs');
  mkdirSync(dir);
  writeFileSync(`${dir}/trace`, files.trace ?? '');
  const target = writeConfig(scratch, { accelerationLayer: true, lowers: [...lowers(), { dir }] });
  const theirs = await coverageOf(target);
  assert.ok(Math.abs(theirs - ours) <= 0.01, `their trace alone covers ${theirs}`);
  writeFileSync(`${dir}/trace.msgpack`, 'damaged');
  assert.equal(await coverageOf(target), theirs, 'a damaged trace of ours gives way to theirs');
});

test('an image has one acceleration layer', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const tagged = image.reference.replace(':v1', ':once');
  const pack = (from: string, to: string) =>
    cli(scratch, ['trace', 'pack-layer', from, recorded(), '--push', to, '--cache', 'none']);
  assert.equal((await pack(image.reference, tagged)).code, 0);
  assert.match((await pack(tagged, `${tagged}-again`)).stderr, /ERR_IMAGE_ACCELERATED/);
  const elsewhere = image.reference.replace('e2e/image:v1', 'e2e/other:v2');
  for (const wrong of [elsewhere, image.reference]) {
    assert.match((await pack(image.reference, wrong)).stderr, /ERR_PACK_TARGET/);
  }
  // The layer is no part of the disk.
  await withDevice({ target: tagged, mode: 'off' }, async (device) => {
    assert.equal(device.report().layers, image.layers.length);
    assert.equal(device.report().virtualSizeBytes, image.virtualSizeBytes);
  });
});

test('an empty recordTracePath is recorded to, and replayed afterwards', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('record');
  writeFileSync(path, '');
  writeFileSync(`${path}.ok`, 'of an earlier recording');
  const target = writeConfig(scratch, { recordTracePath: path });
  await withDevice({ target, mode: 'auto' }, async (device) => {
    assert.equal(device.mode, 'record');
    assert.deepEqual([existsSync(`${path}.lock`), existsSync(`${path}.ok`)], [true, false]);
    await play(device);
    assert.equal(statSync(path).size, 0, 'nothing is written before the recording ends');
  });
  assert.deepEqual([existsSync(`${path}.lock`), existsSync(`${path}.ok`)], [false, true]);
  assert.equal(statSync(`${path}.ok`).size, 0);
  assert.ok(decodeOverlaybdTrace(readFileSync(path), path).count > 9);
  const covered = await coverageOf(target);
  assert.ok(covered > 0.99, `it covers ${covered}`);
});

test('whoever removes the lock ends the recording, and the device goes on', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('record');
  writeFileSync(path, '');
  const target = writeConfig(scratch, { recordTracePath: path });
  await withDevice({ target, mode: 'auto' }, async (device) => {
    await play(device);
    rmSync(`${path}.lock`);
    assert.ok(device.recording !== null);
    const trace = await device.recording.finished;
    assert.equal(trace.recording.endReason, 'request');
    assert.ok(existsSync(`${path}.ok`));
    const bytes = readFileSync(path);
    await play(device);
    await device.close();
    assert.deepEqual(readFileSync(path), bytes);
  });
});

test('a recordTracePath that cannot be written to leaves no .ok', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('record');
  writeFileSync(path, '');
  const target = writeConfig(scratch, { recordTracePath: path });
  const failing = withDevice({ target, mode: 'auto' }, async (device) => {
    await play(device);
    rmSync(path);
  });
  await assert.rejects(failing, { code: 'ENOENT' });
  assert.ok(!existsSync(`${path}.ok`));
});

test('both keys at once are refused, and the snapshotter is told', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const resultFile = scratch.path('result');
  const keys = { accelerationLayer: true, recordTracePath: '/x', resultFile };
  const target = writeConfig(scratch, { ...keys, lowers: [...lowers(), { dir: '/nowhere' }] });
  const opening = withDevice({ target, mode: 'auto' }, async () => undefined);
  await assert.rejects(opening, { code: 'ERR_CONFIG_TRACE' });
  assert.match(readFileSync(resultFile, 'utf8'), /^failed:/);
});

test('a damaged or missing trace is lazy loading', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const damaged = readFileSync(fixture.path('exported'));
  damaged[100] ^= 1;
  writeFileSync(scratch.path('damaged'), damaged);
  for (const name of ['damaged', 'missing']) {
    const target = writeConfig(scratch, { recordTracePath: scratch.path(name) });
    await withDevice({ target, mode: 'replay' }, async (device) => {
      assert.equal(device.mode, 'off');
      await play(device);
    });
  }
});

test('a list of paths fetches the content of the files, and nothing else', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('list');
  writeFileSync(path, '/modules/pino/\n modules/undici/package.json \n/no/such/file\n');
  const target = writeConfig(scratch, { recordTracePath: path });
  await withDevice({ target, mode: 'auto' }, async (device) => {
    assert.equal(device.mode, 'replay');
    assert.ok(device.replay !== null);
    assert.equal(await device.replay.finished, 'complete');
    const isLocal = async (file: string): Promise<boolean> => {
      const fs = await openFileSystem(stackDisk(device.stack, 'test'));
      const node = await findNode(fs, Buffer.from(file));
      assert.ok(node !== null, file);
      const extents = await node.extents();
      assert.ok(extents.length > 0, file);
      return extents.every(({ offset, length }) =>
        device.stack.locate(offset / 512, length / 512).every((piece) => {
          const range = device.stack.blobRangeOf(piece);
          return device.stack.layers[piece.layer].blob.has(range.offset, range.length);
        }),
      );
    };
    assert.ok(await isLocal('/modules/pino/package.json'));
    assert.ok(await isLocal('/modules/pino/lib/proto.js'));
    assert.ok(await isLocal('/modules/undici/package.json'));
    assert.ok(!(await isLocal('/modules/undici/lib/dispatcher/client-h2.js')));
  });
});

test(
  'closing a device whose list is still being looked up waits for nothing',
  { skip },
  async (t) => {
    const scratch = scratchOf(t);
    const path = scratch.path('list');
    writeFileSync(path, '/modules/\n');
    const target = writeConfig(scratch, { recordTracePath: path });
    await withDevice({ target, mode: 'auto' }, async (device) => {
      await device.close();
      assert.ok(device.replay !== null);
      assert.equal(await device.replay.finished, 'cancelled');
    });
  },
);

test('what is imported from the command line replays as it was recorded', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const output = scratch.path('imported.trace');
  const from = ['trace', 'import', '--overlaybd', fixture.path('exported')];
  const flags = ['--image', image.reference, '-o', output, '--cache', 'none'];
  const facts = await cliJson<{ output: string; reads: number; foreignReads: number }>(scratch, [
    ...from,
    ...flags,
  ]);
  assert.equal(facts.output, output);
  assert.ok(facts.reads > 0);
  assert.equal(facts.foreignReads, 0);
  const covered = await coverageOf(image.reference, output);
  assert.ok(covered > 0.99, `it covers ${covered}`);

  writeFileSync(scratch.path('list'), '/modules/pino/\n/no\u001b[2Jsuch\n');
  const paths = ['trace', 'import', '--paths', scratch.path('list'), ...flags];
  const { stdout, stderr, code } = await cli(scratch, paths);
  assert.equal(code, 0, stderr);
  assert.match(stdout, / files \(1 paths missing, 0 failed\)/);
  assert.match(stderr, /^\/no\?\[2Jsuch: not in the image$/m);
  const wrong = await cli(scratch, [
    'trace',
    'import',
    '--overlaybd',
    scratch.path('list'),
    ...flags,
  ]);
  assert.match(wrong.stderr, /ERR_TRACE_MAGIC/);
});

test('show and verify tell the kinds of trace apart', { skip }, async (t) => {
  const scratch = scratchOf(t);
  const shown = await cliJson<{ format: string; records: number; layers: { layer: number }[] }>(
    scratch,
    ['trace', 'show', fixture.path('exported')],
  );
  const { count } = decodeOverlaybdTrace(readFileSync(fixture.path('exported')));
  assert.deepEqual([shown.format, shown.records], ['overlaybd', count]);
  assert.deepEqual(
    shown.layers.map(({ layer }) => layer),
    image.layers.map((_, layer) => layer),
  );
  const text = await cliOutput(scratch, ['trace', 'verify', fixture.path('exported')]);
  assert.match(text, new RegExp(`sound, ${count} records of overlaybd`));
  const bytes = readFileSync(fixture.path('exported'));
  writeFileSync(scratch.path('cut'), bytes.subarray(0, -1));
  const cut = await cli(scratch, ['trace', 'verify', scratch.path('cut')]);
  assert.equal(cut.code, 1);
  assert.match(cut.stderr, /ERR_TRACE_SIZE/);
});
