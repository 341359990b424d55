import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { after, before, test, type TestContext } from 'node:test';
import { ReplaybdError } from '../../src/base/errors.ts';
import { Attachment } from '../../src/daemon/attachment.ts';
import { Runtime, type RuntimeOptions } from '../../src/daemon/runtime.ts';
import type { Fault } from '../../src/registry/embedded/faults.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { blobFault } from '../registry/harness.ts';
import { Attached } from '../support/attached.ts';
import { needs } from '../support/needs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, sha256OfFile, type TestImage } from '../support/test-image.ts';

// Goal: whatever a registry does, every byte that a guest gets is the right one. What can pass is
// retried unseen; what cannot is EIO with its reason, for those reads and for no others, and is never
// kept as if it were good.
// Method: a device over the embedded registry, whose blob requests misbehave in one way at a time and
// in all ways at once; the exported disk is the reference.

const fixture = new Scratch();
const STEP_BYTES = 64 * 1024;
let image: TestImage;
let disk = Buffer.alloc(0);

before(async () => {
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  image = await makeTestImage(fixture, registry.url);
  disk = readFileSync(image.raw);
});
after(() => fixture.close());

interface World {
  registry: EmbeddedRegistry;
  attachment: Attachment;
  /** Closes the device and opens it again with what the cache keeps. */
  reopen(): Promise<Attachment>;
}

/** A device whose registry the test controls; opened before anything goes wrong. */
async function worldOf(t: TestContext, options: Partial<RuntimeOptions> = {}): Promise<World> {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  scratch.atEnd(() => registry.close());
  const open = async (): Promise<[Runtime, Attachment]> => {
    const runtime = await Runtime.open({
      cacheFolder: scratch.path('cache'),
      quotaBytes: 2 ** 30,
      traceFolder: scratch.path('traces'),
      ...options,
    });
    scratch.atEnd(() => runtime.close());
    const target = `${registry.url}/e2e/image:v1`;
    const workload = describeWorkload([], []);
    const attachment = await Attachment.open(runtime, { id: 'd', target, mode: 'off', workload });
    scratch.atEnd(() => attachment.close());
    return [runtime, attachment];
  };
  const [runtime, attachment] = await open();
  const reopen = async (): Promise<Attachment> => {
    await attachment.close();
    await runtime.close();
    return (await open())[1];
  };
  return { registry, attachment, reopen };
}

interface Reads {
  failed: Map<string, number>;
  served: number;
}

/** Reads the whole disk, a few reads at once. What is served must be right; failures are counted. */
async function readDisk({ device }: Attachment): Promise<Reads> {
  const reads: Reads = { failed: new Map(), served: 0 };
  let next = 0;
  const reader = async (): Promise<void> => {
    while (next < disk.length) {
      const offset = next;
      next += STEP_BYTES;
      const expected = disk.subarray(offset, offset + STEP_BYTES);
      const into = Buffer.alloc(expected.length, 0xee);
      try {
        if (!device.readCached(offset, into)) await device.read(offset, into);
        assert.ok(into.equals(expected), `bytes at ${offset}`);
        reads.served += 1;
      } catch (error) {
        if (!(error instanceof ReplaybdError)) throw error;
        assert.equal(error.errno, 'EIO');
        reads.failed.set(error.code, (reads.failed.get(error.code) ?? 0) + 1);
      }
    }
  };
  await Promise.all(Array.from({ length: 4 }, reader));
  return reads;
}

function stepCount(): number {
  return Math.ceil(disk.length / STEP_BYTES);
}

const TRANSIENT: Record<string, Fault> = {
  'a body that is too short': { kind: 'body-length', delta: -100, framing: 'chunked' },
  'a body that is too long': { kind: 'body-length', delta: 100, framing: 'chunked' },
  'an honest length that is too short': { kind: 'body-length', delta: -5000, framing: 'length' },
  'a connection cut inside a range': { kind: 'cut', afterBytes: 20_000 },
  'a connection cut before the answer': { kind: 'cut', afterBytes: 0 },
  'one wrong byte': { kind: 'corrupt', atByte: 3000 },
  'status 503': { kind: 'status', status: 503, headers: { 'retry-after': '0' } },
  'status 429 with Retry-After': { kind: 'status', status: 429, headers: { 'retry-after': '1' } },
  'status 500': { kind: 'status', status: 500 },
};

for (const [name, fault] of Object.entries(TRANSIENT)) {
  test(`${name} passes unseen`, async (t) => {
    const { registry, attachment } = await worldOf(t);
    registry.setFaults(blobFault(fault, 3));
    const { failed, served } = await readDisk(attachment);
    assert.deepEqual([...failed], []);
    assert.equal(served, stepCount());
    assert.equal(attachment.report().quality.missErrors, 0);
  });
}

const FINAL: Record<string, { fault: Fault; code: string }> = {
  '200 with the whole blob': { fault: { kind: 'ignore-range' }, code: 'ERR_RANGE_IGNORED' },
  'the Content-Range of other bytes': {
    fault: { kind: 'headers', headers: { 'content-range': 'bytes 0-4095/99999999' } },
    code: 'ERR_CONTENT_RANGE',
  },
  'a blob that is gone': { fault: { kind: 'status', status: 404 }, code: 'ERR_REGISTRY_NOT_FOUND' },
};

for (const [name, { fault, code }] of Object.entries(FINAL)) {
  test(`${name} is EIO, and good again when the registry is`, async (t) => {
    const { registry, attachment, reopen } = await worldOf(t);
    registry.setFaults(blobFault(fault));
    const { failed, served } = await readDisk(attachment);
    assert.ok(served > 0, 'what opening brought is served');
    assert.deepEqual([...failed.keys()], [code]);
    assert.equal(attachment.report().quality.missErrors, failed.get(code));
    registry.setFaults(undefined);
    assert.equal((await readDisk(attachment)).served, stepCount());
    assert.equal((await readDisk(await reopen())).served, stepCount());
  });
}

test('bytes that stay wrong are EIO with the reason, and never kept', async (t) => {
  const { registry, attachment, reopen } = await worldOf(t);
  registry.setFaults(blobFault({ kind: 'corrupt', atByte: 2000 }));
  const { failed } = await readDisk(attachment);
  assert.deepEqual([...failed.keys()], ['ERR_BLOCK_VERIFY']);
  registry.setFaults(undefined);
  assert.equal((await readDisk(await reopen())).served, stepCount());
});

test('a stall ends with the deadline, and later reads are served', async (t) => {
  const { registry, attachment } = await worldOf(t, { readDeadlineMs: 900 });
  registry.setFaults(blobFault({ kind: 'stall', afterBytes: 1000 }));
  const into = Buffer.alloc(STEP_BYTES);
  const offset = firstAbsent(attachment);
  const stalled = attachment.device.read(offset, into);
  await assert.rejects(stalled, (error) => {
    assert.ok(error instanceof ReplaybdError && error.errno === 'EIO');
    assert.match(error.code, /^ERR_(READ_DEADLINE|FETCH_STALLED)$/);
    assert.ok(error.message.includes(registry.url), 'the registry is named');
    return true;
  });
  registry.setFaults(undefined);
  await attachment.device.read(offset, into);
  assert.ok(into.equals(disk.subarray(offset, offset + STEP_BYTES)));
  assert.equal((await readDisk(attachment)).served, stepCount());
});

function firstAbsent({ device }: Attachment): number {
  const into = Buffer.alloc(STEP_BYTES);
  for (let offset = 0; offset < disk.length; offset += STEP_BYTES) {
    if (!device.readCached(offset, into)) return offset;
  }
  return assert.fail('everything is cached');
}

test('a guest of a mounted device sees EIO, and data again', { skip: needs('root') }, async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  scratch.atEnd(() => registry.close());
  const args = [`${registry.url}/e2e/image:v1`, '--frontend', 'fuse', '--mode', 'off'];
  const attached = await Attached.start(scratch, [...args, '--cache', scratch.path('cache')]);
  const { path } = attached.ready;
  registry.setFaults(blobFault({ kind: 'status', status: 404 }));
  await assert.rejects(readFile(path), { code: 'EIO' });
  await attached.process.untilSaid('ERR_REGISTRY_NOT_FOUND');
  registry.setFaults(undefined);
  assert.equal(await sha256OfFile(path), image.sha256);
  const { quality } = await attached.detach();
  assert.ok(quality.missErrors > 0, 'failed reads are counted');
});

test('all of it at once never shows a guest a wrong byte', async (t) => {
  const { registry, attachment, reopen } = await worldOf(t);
  const { 'status 429 with Retry-After': _slow, ...quick } = TRANSIENT;
  const faults = [...Object.values(quick), ...Object.values(FINAL).map(({ fault }) => fault)];
  let requests = 0;
  registry.setFaults(({ kind, method }) => {
    if (kind !== 'blob' || method !== 'GET') return undefined;
    requests += 1;
    return requests % 3 === 0 ? undefined : faults[requests % faults.length];
  });
  for (let round = 0; round < 2; round += 1) {
    const { failed, served } = await readDisk(attachment);
    assert.ok(served > 0);
    for (const code of failed.keys()) assert.match(code, /^ERR_/);
  }
  registry.setFaults(undefined);
  assert.equal((await readDisk(attachment)).served, stepCount());
  assert.equal((await readDisk(await reopen())).served, stepCount());
});
