import assert from 'node:assert/strict';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { packageRoot } from '../../src/base/package-root.ts';
import type { AttachParameters } from '../../src/daemon/attach-parameters.ts';
import { Devices } from '../../src/daemon/devices.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: a registry that takes requests and does not answer delays no device of another one: it is
// attached, read and detached meanwhile.
// Method: two embedded registries with an image each; one of them stops to answer while guests read a
// device of it, so that their requests fill its lane.

const CONCURRENCY = 1;

const fixture = new Scratch();
const registries: EmbeddedRegistry[] = [];
const images: TestImage[] = [];

before(async () => {
  for (const name of ['undici', 'pino']) {
    const scratch = new Scratch();
    fixture.atEnd(() => scratch.close());
    const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
    scratch.atEnd(() => registry.close());
    registries.push(registry);
    const rootfs = scratch.path('rootfs');
    cpSync(join(packageRoot, 'node_modules', name), rootfs, { recursive: true });
    images.push(await makeTestImage(scratch, registry.url, [rootfs], 16));
  }
});
after(() => fixture.close());

function wanted(id: string, image: TestImage): AttachParameters {
  const common = { mode: 'off', workload: [], frontend: 'none', frontendParameters: {} } as const;
  return { id, image: image.reference, ...common };
}

test('a registry that hangs delays no device of another', async (t) => {
  const scratch = scratchOf(t);
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 30,
    traceFolder: scratch.path('traces'),
    demandConcurrency: CONCURRENCY,
  });
  scratch.atEnd(() => runtime.close());
  const devices = new Devices({ runtime, directory: scratch.folder });
  scratch.atEnd(() => devices.close());
  const [hangs, answers] = registries;
  const [hungImage, image] = images;
  const hung = await devices.attach(wanted('hung', hungImage));
  hangs.setFaults(() => ({ kind: 'delay', ms: 600_000 }));
  const into = Buffer.alloc(4096);
  const stuck: Promise<unknown>[] = [];
  for (let offset = 0; offset < hungImage.virtualSizeBytes; offset += 2 ** 16) {
    const { device } = hung.attachment;
    if (device.readCached(offset, into)) continue;
    stuck.push(device.read(offset, Buffer.alloc(4096)).catch(() => undefined));
  }
  stuck.push(devices.attach(wanted('opening', hungImage)).catch(() => undefined));
  while (runtime.fetchers.stats.demand.queued === 0) await sleep(5);

  const answeredBefore = answers.stats.requests;
  const well = await devices.attach(wanted('well', image));
  const disk = Buffer.alloc(image.virtualSizeBytes);
  for (let offset = 0; offset < disk.length; offset += 2 ** 20) {
    await well.attachment.device.read(offset, disk.subarray(offset, offset + 2 ** 20));
  }
  assert.ok(disk.equals(readFileSync(image.raw)));
  assert.ok(answers.stats.requests > answeredBefore, 'it was the registry that answered');
  await devices.detach('well');
  const { demand, retries } = runtime.fetchers.stats;
  assert.equal(demand.active, CONCURRENCY, 'the lane was full all the time');
  assert.deepEqual([demand.failures, retries], [0, 0], 'and nothing had been given up by then');
  await devices.close();
  await Promise.all(stuck);
});
