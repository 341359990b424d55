import assert from 'node:assert/strict';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import { packageRoot } from '../../src/base/package-root.ts';
import { Attachment, type AttachmentOptions } from '../../src/daemon/attachment.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { startFuse } from '../../src/frontend/fuse/fuse-frontend.ts';
import { startNbd } from '../../src/frontend/nbd/server.ts';
import type { UpperKind } from '../../src/image/lsmt/upper-map.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { RawClient } from '../frontend/nbd-raw-client.ts';
import { blobFault } from '../registry/harness.ts';
import { needs } from '../support/needs.ts';
import { output } from '../support/programs.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';
import {
  applyToOracle,
  assertSameDisk,
  operations,
  readWhole,
  writtenBytes,
  type DiskOperation,
} from '../support/write-oracle.ts';

// Goal: an image attached with a writable layer is the image and what was written to it, nothing more
// and nothing less, over reopens, snapshots and forks; and a writable layer is taken by its own image
// and by one device only.
// Method: attachments in this process over an embedded registry; a flat buffer as the oracle.

const KINDS: readonly UpperKind[] = ['append', 'sparse'];
const fixture = new Scratch();
let image: TestImage;
let disk = Buffer.alloc(0);

before(async () => {
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  const rootfs = [['pino'], ['undici/lib']].map((packages, layer) => {
    const folder = fixture.path(`rootfs${layer}`);
    for (const name of packages) {
      cpSync(join(packageRoot, 'node_modules', name), join(folder, name), { recursive: true });
    }
    return folder;
  });
  image = await makeTestImage(fixture, registry.url, rootfs, 16);
  disk = readFileSync(image.raw);
});
after(() => fixture.close());

async function openRuntime(scratch: Scratch): Promise<Runtime> {
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 30,
    traceFolder: scratch.path('traces'),
  });
  scratch.atEnd(() => runtime.close());
  return runtime;
}

async function attach(
  scratch: Scratch,
  runtime: Runtime,
  options: Partial<AttachmentOptions>,
): Promise<Attachment> {
  const workload = describeWorkload([], []);
  const defaults = { id: 'd', target: image.reference, mode: 'off', workload } as const;
  const attachment = await Attachment.open(runtime, { ...defaults, ...options });
  scratch.atEnd(() => attachment.close());
  return attachment;
}

async function write(attachment: Attachment, offset: number, bytes: Uint8Array): Promise<void> {
  assert.ok(attachment.device.writer !== undefined, 'the device is writable');
  await attachment.device.writer.write(offset, bytes, false);
}

const [WRITE, FLUSH, TRIM, ZEROES, READ] = [1, 3, 4, 6, 0];

/** Does an operation through an NBD client, and says whether it succeeded. */
async function perform(client: RawClient, operation: DiskOperation): Promise<Buffer | null> {
  if (!('offset' in operation)) {
    client.send(FLUSH, 0, 0);
    assert.equal((await client.simpleReply()).error, 0);
    return null;
  }
  const { kind, offset, length } = operation;
  if (kind === 'write') {
    const data = writtenBytes(operation);
    client.send(WRITE, offset, length, { data, flags: operation.fua ? 1 : 0 });
  } else {
    client.send({ read: READ, discard: TRIM, zero: ZEROES }[kind], offset, length);
  }
  assert.equal((await client.simpleReply()).error, 0, JSON.stringify(operation));
  return kind === 'read' ? await client.take(length) : null;
}

for (const upperKind of KINDS) {
  test(`random operations over NBD, ${upperKind}: as a flat disk`, async (t) => {
    const scratch = scratchOf(t);
    const runtime = await openRuntime(scratch);
    // A part of the disk that has data of both lowers and holes, so that operations meet.
    const sectors = 4096;
    let round = 0;
    const property = fc.asyncProperty(operations(sectors), async (steps) => {
      round += 1;
      const upperFolder = scratch.path(`upper-${round}`);
      const open = async (): Promise<[Attachment, RawClient, () => Promise<void>]> => {
        const attachment = await attach(scratch, runtime, { upperFolder, upperKind });
        const socketPath = scratch.path('nbd');
        const frontend = await startNbd(attachment.device, { socketPath });
        const client = await RawClient.transmit(socketPath, false);
        const close = async (): Promise<void> => {
          await frontend.close();
          await attachment.close();
        };
        return [attachment, client, close];
      };
      const oracle = Buffer.from(disk);
      let [attachment, client, close] = await open();
      for (const step of steps) {
        if (step.kind === 'reopen') {
          await close();
          [attachment, client, close] = await open();
        } else if (step.kind === 'snapshot') {
          await attachment.snapshot({});
        } else {
          const found = await perform(client, step);
          applyToOracle(oracle, step);
          if (found === null || !('offset' in step)) continue;
          const { offset, length } = step;
          assertSameDisk(found, oracle.subarray(offset, offset + length), JSON.stringify(step));
        }
      }
      await close();
      const reopened = await attach(scratch, runtime, { upperFolder });
      assertSameDisk(await readWhole(reopened.device), oracle, 'after the last reopen');
      await reopened.close();
    });
    await fc.assert(property, { numRuns: 6, endOnFailure: true });
  });
}

test('a writable layer is reopened by its own image, kind and one device only', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const upperFolder = scratch.path('upper');
  const first = await attach(scratch, runtime, { upperFolder });
  assert.equal(first.upper?.report().kind, 'append', 'the default');
  await write(first, 4096, Buffer.alloc(512, 7));
  const second = attach(scratch, runtime, { id: 'e', upperFolder });
  await assert.rejects(second, { code: 'ERR_UPPER_BUSY' });
  await first.close();
  const sparse = attach(scratch, runtime, { upperFolder, upperKind: 'sparse' });
  await assert.rejects(sparse, { code: 'ERR_UPPER_KIND' });
  const config = join(upperFolder, 'config.v1.json');
  const conflict = attach(scratch, runtime, { target: config, upperFolder: scratch.path('more') });
  await assert.rejects(conflict, { code: 'ERR_UPPER_CONFLICT' });
  const foreign = attach(scratch, runtime, { target: image.config, upperFolder });
  await assert.rejects(foreign, { code: 'ERR_UPPER_IMAGE' });
  const third = await attach(scratch, runtime, { target: config });
  const expected = Buffer.from(disk);
  expected.fill(7, 4096, 4608);
  assertSameDisk(await readWhole(third.device), expected, 'by its own configuration');
  assert.equal(third.report().layers, 2);
});

test("what a killed attach left is in nobody's way", async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const upperFolder = scratch.path('upper');
  await (await attach(scratch, runtime, { upperFolder })).close();
  rmSync(join(upperFolder, 'config.v1.json'));
  const attachment = await attach(scratch, runtime, { upperFolder });
  assert.equal(attachment.upper?.report().data, join(upperFolder, 'upper-1.data'));
});

test('a writable layer that was written on other layers is refused', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const upperFolder = scratch.path('upper');
  await (await attach(scratch, runtime, { upperFolder })).close();
  const path = join(upperFolder, 'config.v1.json');
  const config = JSON.parse(readFileSync(path, 'utf8')) as { lowers: unknown[] };
  const other = scratch.path('other.json');
  writeFileSync(other, JSON.stringify({ ...config, lowers: config.lowers.slice(0, 1) }));
  const misplaced = attach(scratch, runtime, { target: other });
  await assert.rejects(misplaced, { code: 'ERR_UPPER_PARENT' });
  const incomplete = { ...config, upper: { data: scratch.path('no'), index: scratch.path('no') } };
  writeFileSync(other, JSON.stringify(incomplete));
  await assert.rejects(attach(scratch, runtime, { target: other }), { code: 'ERR_UPPER_OPEN' });
  const turbo = { ...config, upper: { data: 'd', index: 'i', target: 't' } };
  writeFileSync(other, JSON.stringify(turbo));
  const turboOci = attach(scratch, runtime, { target: other });
  await assert.rejects(turboOci, { code: 'ERR_CONFIG_UNSUPPORTED' });
});

test('a recording holds what the lowers served, not what was written', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const tracePath = scratch.path('run.trace');
  const upperFolder = scratch.path('upper');
  const options = { upperFolder, mode: 'record', tracePath } as const;
  const sealed = await attach(scratch, runtime, { upperFolder });
  const data = firstData();
  await write(sealed, data, Buffer.alloc(4096, 1));
  await sealed.snapshot({});
  await sealed.close();
  const attachment = await attach(scratch, runtime, options);
  await write(attachment, data + 4096, Buffer.alloc(4096, 2));
  const into = Buffer.alloc(16_384);
  const { device } = attachment;
  if (!device.readCached(data, into)) await device.read(data, into);
  assert.deepEqual([into[0], into[4096]], [1, 2]);
  assert.ok(into.subarray(8192).equals(disk.subarray(data + 8192, data + 16_384)));
  await attachment.close();
  const { records, image: identity } = decodeTrace(readFileSync(tracePath), tracePath);
  assert.equal(identity.layers.length, 2, 'the image, without what was sealed');
  const lbas = Array.from({ length: records.count }, (_, i) => records.lba[i]);
  assert.ok(records.count > 0 && lbas.every((lba) => lba >= data / 512 + 16), lbas.join());
});

/** Where 16 KiB of the disk are all data. */
function firstData(): number {
  for (let at = 0; at < disk.length; at += 16_384) {
    const blocks = [0, 1, 2, 3].map((block) => disk.subarray(at + block * 4096).subarray(0, 4096));
    if (blocks.every((bytes) => bytes.some((byte) => byte !== 0))) return at;
  }
  assert.fail('the image has data');
}

for (const upperKind of KINDS) {
  test(`a write onto remote data waits for no registry, ${upperKind}`, async (t) => {
    const scratch = scratchOf(t);
    const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
    scratch.atEnd(() => registry.close());
    const runtime = await openRuntime(scratch);
    const target = `${registry.url}/e2e/image:v1`;
    const upperFolder = scratch.path('upper');
    const attachment = await attach(scratch, runtime, { target, upperFolder, upperKind });
    const socketPath = scratch.path('nbd');
    const frontend = await startNbd(attachment.device, { socketPath });
    scratch.atEnd(() => frontend.close());
    const client = await RawClient.transmit(socketPath, false);
    const at = remoteBlock(attachment);
    registry.setFaults(blobFault({ kind: 'stall', afterBytes: 0 }));
    const before = registry.stats.requests;
    // One sector of a block of which nothing is here, made durable.
    const data = Buffer.alloc(512, 0xab);
    client.send(WRITE, at + 1024, 512, { data, flags: 1 });
    assert.equal((await client.simpleReply()).error, 0);
    client.send(READ, at + 1024, 512);
    assert.equal((await client.simpleReply()).error, 0);
    assert.ok((await client.take(512)).equals(data));
    assert.equal(registry.stats.requests, before, 'nothing was asked for');
    assert.ok(!attachment.device.readCached(at, Buffer.alloc(4096)), 'the rest is still remote');
    registry.setFaults(undefined);
    const expected = Buffer.from(disk.subarray(at, at + 4096));
    data.copy(expected, 1024);
    client.send(READ, at, 4096);
    assert.equal((await client.simpleReply()).error, 0);
    assert.ok((await client.take(4096)).equals(expected));
    assert.ok(registry.stats.requests > before);
  });
}

const fuse = { skip: needs('root', 'dd') };

test('nor does one through FUSE and a loop device', fuse, async (t) => {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  scratch.atEnd(() => registry.close());
  const runtime = await openRuntime(scratch);
  const target = `${registry.url}/e2e/image:v1`;
  const options = { target, upperFolder: scratch.path('upper'), readerThreads: 2 };
  const attachment = await attach(scratch, runtime, options);
  const frontend = await startFuse(attachment.device, { directory: scratch.path('run') });
  scratch.atEnd(() => frontend.close());
  const at = remoteBlock(attachment);
  registry.setFaults(blobFault({ kind: 'stall', afterBytes: 0 }));
  const data = Buffer.alloc(512, 0xcd);
  const source = scratch.path('source');
  writeFileSync(source, data);
  const before = registry.stats.requests;
  const words = ['bs=512', `seek=${at / 512 + 3}`, 'oflag=direct', 'conv=fsync,notrunc'];
  await output('dd', `if=${source}`, `of=${frontend.path}`, ...words);
  assert.equal(registry.stats.requests, before, 'nothing was asked for');
  assert.ok(!attachment.device.readCached(at, Buffer.alloc(4096)), 'the rest is still remote');
  assert.equal(attachment.upper?.report().writtenBytes, 512);
  registry.setFaults(undefined);
  const expected = Buffer.from(disk);
  data.copy(expected, at + 3 * 512);
  assertSameDisk(await readWhole(attachment.device), expected, 'once it answers again');
});

/** A block of data that is not local yet. */
function remoteBlock({ device }: Attachment): number {
  const into = Buffer.alloc(4096);
  for (let at = 0; at < disk.length; at += 4096) {
    const hasData = disk.subarray(at, at + 4096).some((byte) => byte !== 0);
    if (hasData && !device.readCached(at, into)) return at;
  }
  assert.fail('everything is local already');
}

for (const upperKind of KINDS) {
  test(`snapshots and forks hold what was there, ${upperKind}`, async (t) => {
    const scratch = scratchOf(t);
    const runtime = await openRuntime(scratch);
    const upperFolder = scratch.path('upper');
    const first = await attach(scratch, runtime, { upperFolder, upperKind });
    const expected = Buffer.from(disk);
    const change = async (attachment: Attachment, oracle: Buffer, seed: number) => {
      const bytes = Buffer.alloc(8192, seed);
      await write(attachment, seed * 4096, bytes);
      bytes.copy(oracle, seed * 4096);
      await attachment.device.writer?.discard(seed * 65_536, 4096);
      oracle.fill(0, seed * 65_536, seed * 65_536 + 4096);
    };
    await change(first, expected, 3);
    const { sealed, upper, lowers } = await first.snapshot({});
    assert.equal(sealed, join(upperFolder, 'upper-0.data'));
    assert.equal(upper.data, join(upperFolder, 'upper-1.data'));
    assert.equal(lowers, 3);
    await change(first, expected, 5);

    const fork = await first.fork({ folder: scratch.path('fork') });
    assert.ok(fork.snapshot !== null, 'what was written is sealed for it');
    assert.equal(fork.lowers, 4);
    const again = await first.fork({ folder: scratch.path('fork-2'), kind: 'append' });
    assert.equal(again.snapshot, null, 'nothing was written since');
    const busy = first.fork({ folder: scratch.path('fork') });
    await assert.rejects(busy, { code: 'ERR_FORK_EXISTS' });

    const forked = Buffer.from(expected);
    const second = await attach(scratch, runtime, { id: 'fork', target: fork.config });
    assert.equal(second.upper?.report().kind, upperKind);
    assert.equal(second.device.virtualSizeBytes, first.device.virtualSizeBytes);
    await change(second, forked, 7);
    await change(first, expected, 9);
    assertSameDisk(await readWhole(first.device), expected, 'the first');
    assertSameDisk(await readWhole(second.device), forked, 'its fork');
    await first.close();
    await second.close();
    const reopened = await attach(scratch, runtime, { upperFolder });
    assertSameDisk(await readWhole(reopened.device), expected, 'the first, reopened');
    assert.equal(reopened.report().layers, 4);
  });
}

test('a read-only device is forked, and takes no snapshot', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const original = await attach(scratch, runtime, {});
  await assert.rejects(original.snapshot({}), { code: 'ERR_DEVICE_READ_ONLY' });
  assert.equal(original.report().upper, null);
  const { config, snapshot } = await original.fork({ folder: scratch.path('fork') });
  assert.equal(snapshot, null);
  const fork = await attach(scratch, runtime, { id: 'fork', target: config });
  await write(fork, 0, Buffer.alloc(1024, 1));
  const expected = Buffer.from(disk).fill(1, 0, 1024);
  assertSameDisk(await readWhole(fork.device), expected, 'the fork');
  assertSameDisk(await readWhole(original.device), disk, 'the original');
});

test('a new writable layer can be put anywhere, and of the other kind', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const attachment = await attach(scratch, runtime, { upperFolder: scratch.path('upper') });
  await write(attachment, 0, Buffer.alloc(512, 1));
  const [data, index] = [scratch.path('data'), scratch.path('index')];
  const facts = await attachment.snapshot({ data, index, kind: 'sparse' });
  assert.deepEqual(facts.upper, { data, index });
  assert.equal(attachment.upper?.report().kind, 'sparse');
  await assert.rejects(attachment.snapshot({ data, index }), { code: 'ERR_UPPER_EXISTS' });
  await write(attachment, 512, Buffer.alloc(512, 2));
  await attachment.close();
  const reopened = await attach(scratch, runtime, { target: facts.config });
  const expected = Buffer.from(disk).fill(1, 0, 512).fill(2, 512, 1024);
  assertSameDisk(await readWhole(reopened.device), expected, 'reopened');
});

test('what was written is counted, and in the metrics', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await openRuntime(scratch);
  const attachment = await attach(scratch, runtime, { upperFolder: scratch.path('upper') });
  const { writer } = attachment.device;
  assert.ok(writer !== undefined);
  await writer.write(0, Buffer.alloc(4096), false);
  await writer.write(4096, Buffer.alloc(512), true);
  await writer.flush();
  await writer.discard(8192, 1024);
  await writer.writeZeroes(0, 512);
  await assert.rejects(writer.write(attachment.device.virtualSizeBytes, Buffer.alloc(512), false), {
    errno: 'ENOSPC',
  });
  const counted = {
    ...{ writes: 2, writtenBytes: 4608, flushes: 2, discards: 1, discardedBytes: 1024 },
    ...{ zeroes: 1, zeroedBytes: 512 },
  };
  const { data, index, kind, ...counts } = attachment.report().upper ?? assert.fail();
  assert.deepEqual(counts, counted);
  assert.ok(existsSync(data) && existsSync(index) && kind === 'append');
  const text = await runtime.metrics.registry.metrics();
  for (const [name, value] of [
    ['writes', 2],
    ['written_bytes', 4608],
    ['flushes', 2],
    ['discarded_bytes', 1024],
    ['zeroed_bytes', 512],
  ]) {
    assert.ok(text.includes(`replaybd_${name}_total{device="d"} ${value}\n`), `${name}: ${text}`);
  }
  await attachment.close();
  assert.ok(!(await runtime.metrics.registry.metrics()).includes('writes_total{device="d"}'));
});
