import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createLogger } from '../../src/base/log.ts';
import { Attachment, type AttachmentOptions } from '../../src/daemon/attachment.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import type { Fault } from '../../src/registry/embedded/faults.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import type { PackedMode } from '../../src/prefetch/packed-rule.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { HOT_MEDIA_TYPE } from '../../src/trace/hot-blob.ts';
import { hotRanges } from '../../src/trace/hot-layout.ts';
import { describeWorkload, type Trace, type TracePacked } from '../../src/trace/trace.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import { random } from '../trace/synthetic.ts';

// Goal: a hot blob brings the plan's bytes in a few requests, and whatever is wrong with it changes how
// fast bytes come and never which. Method: scattered reads of an image in a registry of this process
// are recorded and packed; each replay starts with an empty cache, and what the device then reads is
// compared with the disk. The registry's log tells who was asked for what.

const fixture = new Scratch();
const workload = describeWorkload(['test'], []);
const READ_BYTES = 4096;
let registry: EmbeddedRegistry;
let image: TestImage;
let disk: Buffer;
let trace: Trace & { packed: TracePacked };
let offsets: number[] = [];

before(async () => {
  registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  image = await makeTestImage(fixture, registry.url);
  disk = readFileSync(image.raw);
  const next = random(11);
  offsets = Array.from({ length: 2000 }, () => {
    return Math.floor((next() * (image.virtualSizeBytes - READ_BYTES)) / 512) * 512;
  });
  const recorded = fixture.path('recorded.trace');
  await withDevice({ mode: 'record', tracePath: recorded }, readAll);
  await cliJson(fixture, packArgs(image.reference, recorded, '--push', ...outputs('packed')));
  trace = packedOf(readFileSync(fixture.path('packed.trace')));
});
after(() => fixture.close());

function packArgs(target: string, file: string, ...more: string[]): string[] {
  return ['trace', 'pack', file, target, '--cache', 'none', '--json', ...more];
}

function outputs(name: string): string[] {
  return ['-o', fixture.path(`${name}.trace`), '--blob', fixture.path(`${name}.hot`)];
}

function packedOf(bytes: Uint8Array): Trace & { packed: TracePacked } {
  const { packed, ...others } = decodeTrace(bytes);
  assert.ok(packed !== undefined);
  return { ...others, packed };
}

function logPath(): string {
  return fixture.path('log');
}

/** Of the last device, a line each. */
function warnings(): string {
  return readFileSync(logPath(), 'utf8');
}

interface Opened {
  device: Attachment;
  runtime: Runtime;
}

/** A device on an empty cache, for as long as `work` takes; its warnings are kept. */
async function withDevice<T>(
  options: Omit<AttachmentOptions, 'id' | 'workload' | 'target'> & { target?: string },
  work: (opened: Opened) => Promise<T>,
): Promise<T> {
  rmSync(logPath(), { force: true });
  const log = createLogger({ level: 'warn', path: logPath() });
  const runtime = await Runtime.open({
    ...{ cacheFolder: null, quotaBytes: 2 ** 30, log },
    traceFolder: fixture.path('no-traces'),
  });
  try {
    const target = image.reference;
    const device = await Attachment.open(runtime, { id: 'test', workload, target, ...options });
    try {
      return await work({ device, runtime });
    } finally {
      await device.close();
    }
  } finally {
    await runtime.close();
  }
}

/** Reads what was recorded, and compares it with the disk. */
async function readAll({ device }: Opened): Promise<void> {
  const into = Buffer.alloc(READ_BYTES);
  for (const offset of offsets) {
    if (!device.device.readCached(offset, into)) await device.device.read(offset, into);
    assert.ok(into.equals(disk.subarray(offset, offset + READ_BYTES)), `bytes at ${offset}`);
  }
}

interface ReplayOptions {
  mode: 'replay';
  tracePath: string;
  packed: PackedMode;
  budgetBytes?: number;
}

function replayOptions(tracePath = fixture.path('packed.trace')): ReplayOptions {
  return { mode: 'replay', tracePath, packed: 'on' };
}

/** GETs since the log was cleared: of the hot blob, and of the layers. */
function asked(): { hot: number; layers: number } {
  const gets = registry.log.filter(({ kind, method }) => kind === 'blob' && method === 'GET');
  const hot = gets.filter(({ url }) => url.includes(trace.packed.digest)).length;
  return { hot, layers: gets.length - hot };
}

/** Has requests of the hot blob misbehave: from one on, so many. */
function spoil(fault: Fault, times = Infinity, first = 0): void {
  let count = 0;
  registry.setFaults(({ url, method }) => {
    if (!url.includes(trace.packed.digest) || method !== 'GET') return undefined;
    count += 1;
    return count > first && count <= first + times ? fault : undefined;
  });
}

/** Replays to the end, then reads; gives what was asked for and what came of it. */
async function replayAndRead(options: ReplayOptions) {
  registry.clearLog();
  try {
    return await withDevice(options, async (opened) => {
      await opened.device.replay?.finished;
      await readAll(opened);
      return { ...asked(), report: opened.device.report() };
    });
  } finally {
    registry.setFaults(undefined);
  }
}

test('packing gives the same bytes every time, and those of the layers', async (t) => {
  const scratch = scratchOf(t);
  const recorded = fixture.path('recorded.trace');
  // From files, and from a registry.
  for (const [name, target] of [
    ['local', image.config],
    ['again', image.reference],
  ]) {
    await cliJson(scratch, packArgs(target, recorded, ...outputs(name)));
    for (const kind of ['trace', 'hot']) {
      const bytes = readFileSync(fixture.path(`${name}.${kind}`));
      assert.ok(bytes.equals(readFileSync(fixture.path(`packed.${kind}`))), `${name}.${kind}`);
    }
  }
  const hot = readFileSync(fixture.path('packed.hot'));
  const { packed, plan } = trace;
  assert.equal(`sha256:${createHash('sha256').update(hot).digest('hex')}`, packed.digest);
  assert.equal(hot.length, packed.sizeBytes);
  const layers = await Promise.all(trace.image.layers.map(({ digest }) => blobBytes(digest)));
  for (const { layer, offset, length, at } of hotRanges(plan, packed.layers)) {
    assert.ok(
      hot.subarray(at, at + length).equals(layers[layer].subarray(offset, offset + length)),
    );
  }
});

async function blobBytes(digest: string): Promise<Buffer> {
  const answer = await fetch(`${registry.url}/v2/e2e/image/blobs/${digest}`);
  return Buffer.from(await answer.arrayBuffer());
}

test('the hot blob is all that a cold start asks for', async (t) => {
  registry.setLink({ latencyMs: 20 });
  t.after(() => registry.setLink({}));
  const { hot, layers, report } = await replayAndRead(replayOptions());
  assert.equal(layers, 0, 'no layer was asked for a planned range');
  assert.ok(hot < trace.plan.count / 10, `${hot} requests for ${trace.plan.count} ranges`);
  assert.equal(report.replay?.end, 'complete');
  assert.equal(report.replay.requests, hot);
  const { sizeBytes: bytes } = trace.packed;
  assert.deepEqual(report.replay.packed, { requests: hot, bytes, ended: 'complete' });
  assert.equal(report.quality.lanes.prefetch.requests, hot);
  assert.equal(report.quality.lanes.prefetch.bytes, trace.packed.sizeBytes);
  const plain = await replayAndRead({ ...replayOptions(), packed: 'off' });
  assert.equal(plain.hot, 0);
  assert.equal(plain.report.replay?.packed, null);
  assert.ok(plain.layers > hot);
});

test('flipped bytes are noticed, and their blocks come from the layers', async () => {
  for (const step of [4099, 7919]) {
    let count = 0;
    registry.setFaults(({ url }) => {
      if (!url.includes(trace.packed.digest)) return undefined;
      count += 1;
      return { kind: 'corrupt', atByte: count * step };
    });
    registry.clearLog();
    await withDevice(replayOptions(), async (opened) => {
      await opened.device.replay?.finished;
      // Those that no read needs are noticed by the digest.
      while (asked().layers === 0) {
        await readAll(opened);
        await sleep(10);
      }
      await readAll(opened);
      assert.equal(opened.device.report().quality.missErrors, 0);
    });
  }
  registry.setFaults(undefined);
});

test('a hot blob of other bytes is forgotten', async () => {
  // Bytes that no CRC covers: the spoilt ones may lie between what the records read.
  spoil({ kind: 'corrupt', atByte: 4 }, Infinity);
  registry.clearLog();
  await withDevice(replayOptions(), async (opened) => {
    await opened.device.replay?.finished;
    while (asked().layers === 0) {
      await readAll(opened);
      await sleep(10);
    }
  });
  registry.setFaults(undefined);
});

const spoilt: [string, Fault][] = [
  ['missing', { kind: 'status', status: 404 }],
  ['cut', { kind: 'cut', afterBytes: 20_000 }],
  ['short', { kind: 'body-length', delta: -100, framing: 'length' }],
  ['long', { kind: 'body-length', delta: 100, framing: 'chunked' }],
  ['sent whole', { kind: 'ignore-range' }],
  ['of another size', { kind: 'headers', headers: { 'content-range': 'bytes 0-65535/65536' } }],
  ['refused', { kind: 'status', status: 503 }],
];
for (const [what, fault] of spoilt) {
  test(`a hot blob that is ${what} leaves its part of the plan to the layers`, async () => {
    spoil(fault);
    const { hot, report } = await replayAndRead(replayOptions());
    assert.ok(hot > 0 && hot <= 50, `${hot} requests`);
    assert.equal(report.replay?.end, 'complete');
    assert.equal(report.quality.missErrors, 0);
    assert.equal(report.replay.packed?.ended, 'given-up');
    assert.match(warnings(), /^[^\n]*the hot blob is given up[^\n]*\n$/, 'one warning');
    // Opening waited for the hot blob, and asked the layers itself when that failed.
    const { requests } = report.quality.lanes.demand;
    assert.ok(requests <= 4 * image.layers.length, `${requests} requests of the demand lane`);
  });
}

test('one failed request does not end the stream', async () => {
  spoil({ kind: 'cut', afterBytes: 4096 }, 1);
  const { hot, layers, report } = await replayAndRead(replayOptions());
  assert.ok(hot > 2 && layers > 0);
  assert.equal(report.replay?.failed, 1);
  assert.equal(report.replay.packed?.ended, 'complete');
  assert.equal(warnings(), '');
});

test('a device can be closed while the hot blob hangs', async () => {
  spoil({ kind: 'stall', afterBytes: 0 }, Infinity, 3);
  await withDevice(replayOptions(), async ({ device }) => {
    assert.equal(device.replay?.end, null, 'the stream hangs');
  });
  registry.setFaults(undefined);
});

test('the budget counts', async () => {
  const budgetBytes = 512 * 1024;
  const options = { ...replayOptions(), budgetBytes };
  const { report } = await replayAndRead(options);
  assert.equal(report.replay?.end, 'budget');
  assert.equal(report.replay.packed?.ended, 'budget');
  assert.ok(report.quality.lanes.prefetch.bytes <= budgetBytes);
});

test('ranges of layers that the image lacks, or that are not packed, are left out', async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('other.trace');
  const [bottom, top] = trace.image.layers;
  const digest = `sha256:${'0'.repeat(64)}`;
  const foreign = { ...trace.image, layers: [bottom, { ...top, digest }] };
  writeFileSync(path, encodeTrace({ ...trace, image: foreign }));
  const { report } = await replayAndRead(replayOptions(path));
  assert.ok((report.replay?.foreignRanges ?? 0) > 0);
  assert.ok(report.quality.lanes.prefetch.bytes < trace.packed.sizeBytes);
});

test('a packed trace travels as one referrer, with its blob', async (t) => {
  const scratch = scratchOf(t);
  const pulled = scratch.path('pulled.trace');
  await cliOutput(scratch, ['trace', 'pull', image.reference, '-o', pulled]);
  assert.ok(readFileSync(pulled).equals(readFileSync(fixture.path('packed.trace'))));
  const [line] = (await cliOutput(scratch, ['trace', 'ls', image.reference])).split(' ');
  const url = `${registry.url}/v2/e2e/image/manifests/${line}`;
  const { layers } = (await (await fetch(url)).json()) as {
    layers: { mediaType: string; digest: string; size: number }[];
  };
  const { digest, sizeBytes: size } = trace.packed;
  assert.deepEqual(layers[1], { mediaType: HOT_MEDIA_TYPE, digest, size });
  // Of a plan that was packed otherwise, nobody has the blob.
  const otherHot = { ...trace.packed, digest: `sha256:${'1'.repeat(64)}` };
  writeFileSync(pulled, encodeTrace({ ...trace, packed: otherHot }));
  for (const more of [[], ['--blob', fixture.path('packed.hot')]]) {
    const { code, stderr } = await cli(scratch, [
      ...['trace', 'push', image.reference, pulled, ...more],
    ]);
    assert.equal(code, 1);
    assert.match(stderr, /ERR_HOT_BLOB/);
  }
});

test('only the traces of users have their hot blobs read, unless that is asked for', async (t) => {
  registry.setLink({ latencyMs: 50 });
  t.after(() => registry.setLink({}));
  const isRead = async (target: string, packed: PackedMode): Promise<boolean> => {
    registry.clearLog();
    const given = target === image.reference ? { tracePath: fixture.path('packed.trace') } : {};
    await withDevice({ mode: 'replay', packed, target, ...given }, async ({ device }) => {
      await device.replay?.finished;
      assert.equal(device.mode, 'replay');
    });
    return asked().hot > 0;
  };
  assert.ok(await isRead(image.reference, 'auto'));
  assert.ok(!(await isRead(image.reference, 'off')));
  const accelerated = `${registry.url}/e2e/image:accelerated`;
  await cliOutput(fixture, [
    ...['trace', 'pack-layer', image.reference, fixture.path('packed.trace')],
    ...['--push', accelerated, '--cache', 'none'],
  ]);
  assert.ok(!(await isRead(accelerated, 'auto')), 'the trace came with the image');
  assert.ok(await isRead(accelerated, 'on'));
});

test('what cannot be packed is told, and nothing is left behind', async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('no-plan.trace');
  const plan = { ...trace.plan, count: 0, blob: new Uint16Array(0) };
  const { packed: _packed, ...unpacked } = trace;
  writeFileSync(path, encodeTrace({ ...unpacked, plan }));
  const args = ['-o', scratch.path('out.trace'), '--blob', scratch.path('out.hot')];
  const { code, stderr } = await cli(scratch, packArgs(image.config, path, ...args));
  assert.equal(code, 1);
  assert.match(stderr, /ERR_PACK_PLAN/);
  assert.ok(!existsSync(scratch.path('out.trace')) && !existsSync(scratch.path('out.hot')));
  const usage = await cli(scratch, packArgs(image.config, path));
  assert.equal(usage.code, 2);
  assert.match(usage.stderr, /--push, or --output and --blob/);
});
