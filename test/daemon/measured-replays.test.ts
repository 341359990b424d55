import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/base/clock.ts';
import { Attachment } from '../../src/daemon/attachment.ts';
import { Runtime, type RuntimeOptions } from '../../src/daemon/runtime.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import { listCatalog } from '../../src/trace/store-catalog.ts';
import type { ReplayRun } from '../../src/trace/store-facts.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: a trace is stale when the workload reads something else, and only then: not because a link is
// slow, and not because the workload begins late. Method: devices in mode auto with a cold cache each, in
// this process, on a link of this process's registry, that read parts of a disk in some order.

const fixture = new Scratch();
const workload = describeWorkload(['/bin/app'], []);
const READ_BYTES = 128 * 1024;
const FIRST = partsOf(0, 4 * 2 ** 20);
const SECOND = partsOf(4 * 2 ** 20, 12 * 2 ** 20);
const BOTH = [...FIRST, ...SECOND];
let registry: EmbeddedRegistry;
let image: TestImage;

before(async () => {
  registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  image = await makeTestImage(fixture, registry.url);
});
after(() => fixture.close());

function partsOf(start: number, end: number): number[] {
  return Array.from({ length: (end - start) / READ_BYTES }, (_, i) => start + i * READ_BYTES);
}

type ReadParts = (offsets: readonly number[]) => Promise<void>;

/** One start; what the report says, and how the store remembers it. */
async function run(
  traceFolder: string,
  read: (readParts: ReadParts, runtime: Runtime) => Promise<void>,
  options: Pick<RuntimeOptions, 'clock' | 'renewal'> = {},
) {
  const runtime = await Runtime.open({
    ...{ cacheFolder: null, quotaBytes: 2 ** 30, traceFolder },
    ...options,
  });
  try {
    const target = image.reference;
    const device = await Attachment.open(runtime, { id: 'test', mode: 'auto', workload, target });
    const readParts: ReadParts = async (offsets) => {
      const read = async (offset: number): Promise<void> => {
        const into = Buffer.alloc(READ_BYTES);
        if (!device.device.readCached(offset, into)) await device.device.read(offset, into);
      };
      // At once, as the threads of a workload do.
      await Promise.all(offsets.map(read));
    };
    await read(readParts, runtime).finally(() => device.close());
    const [{ facts }] = await listCatalog(runtime.traces);
    return { report: device.report(), facts, last: facts?.runs.at(-1) };
  } finally {
    await runtime.close();
  }
}

test('reads that overtake the plan on a slow link do not make a good trace stale', async (t) => {
  const folder = scratchOf(t).path('traces');
  assert.equal((await run(folder, (read) => read(BOTH))).report.mode, 'record');
  registry.setLink({ latencyMs: 20, bytesPerSecond: 2_000_000 });
  t.after(() => registry.setLink({}));
  // From the end on: the plan brings the beginning first, and covers about a third.
  const slow = await run(folder, (read) => read(BOTH.toReversed()));
  assert.equal(slow.report.mode, 'replay');
  assert.ok((slow.last?.planned ?? 0) > 0.95, JSON.stringify(slow.last));
  registry.setLink({});
  assert.equal((await run(folder, (read) => read(BOTH))).report.renewal, null);
});

test('a workload that begins long after the mount is measured all the same', async (t) => {
  const folder = scratchOf(t).path('traces');
  await run(folder, (read) => read(FIRST));
  const late = await run(folder, async (read) => {
    await read(FIRST.slice(0, 1));
    // As long as the trace was recorded, and a second more.
    await sleep(1500);
    await read(SECOND);
  });
  const isMeasured = ({ planned, touchedBytes }: ReplayRun): boolean =>
    (planned ?? 1) < 0.5 && touchedBytes > 256 * 1024;
  assert.ok(late.last !== undefined && isMeasured(late.last), JSON.stringify(late.last));
  assert.equal((await run(folder, (read) => read(FIRST))).report.renewal, 'coverage');
});

test('a stale trace of such a workload is recorded anew to its end', async (t) => {
  const folder = scratchOf(t).path('traces');
  const { facts: old } = await run(folder, (read) => read(FIRST));
  let aheadMs = 0;
  const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
  const { report, facts } = await run(
    folder,
    async (read, runtime) => {
      await read(FIRST.slice(0, 1));
      aheadMs += 3_600_000;
      runtime.ticker.tick();
      await read(SECOND);
    },
    { clock, renewal: { maxAgeMs: 0 } },
  );
  assert.equal(report.renewal, 'age');
  assert.notEqual(facts?.recordedAtMs, old?.recordedAtMs);
  assert.ok((facts?.sectors ?? 0) > (old?.sectors ?? 0));
});
