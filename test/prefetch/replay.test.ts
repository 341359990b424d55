import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Blob } from '../../src/blob/blob.ts';
import type { Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import type { ByteRange } from '../../src/base/range.ts';
import { startReplay, type PrefetchLane, type ReplayOptions } from '../../src/prefetch/replay.ts';
import type { TracePlan } from '../../src/trace/trace.ts';
import { recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: a replay asks for the plan, in order, lazily, within its budget, and stops when told or when
// everything fails. Method: a lane that the test answers by hand, over blobs with a presence set.

const G = 4096;
const BLOB_BYTES = 4000 * G + 100;
const layers = syntheticLayers(2, BLOB_BYTES);

class ScriptedBlob {
  readonly sizeBytes = BLOB_BYTES;
  readonly present = new Set<number>();
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  add(range: ByteRange): void {
    for (let at = range.offset; at < range.offset + range.length; at += G) {
      this.present.add(Math.floor(at / G));
    }
  }

  has(offset: number, length: number): boolean {
    for (let at = Math.floor(offset / G); at * G < offset + length; at += 1) {
      if (!this.present.has(at)) return false;
    }
    return true;
  }
}

interface Call extends ByteRange {
  blob: string;
  signal: AbortSignal;
  done: () => void;
  fail: (error: Error) => void;
}

class ScriptedLane implements PrefetchLane {
  readonly calls: Call[] = [];
  answer: 'hold' | 'done' | 'fail' | 'give up' = 'hold';

  prefetch(blob: Blob, range: ByteRange, options: { signal: AbortSignal }): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const { signal } = options;
    signal.addEventListener('abort', () => reject(new Error('aborted')));
    const done = (): void => {
      (blob as unknown as ScriptedBlob).add(range);
      resolve();
    };
    this.calls.push({ ...range, blob: blob.name, signal, done, fail: reject });
    if (this.answer === 'done') done();
    if (this.answer === 'give up') resolve();
    if (this.answer === 'fail') reject(new Error('registry is down'));
    return promise;
  }

  ranges(): string[] {
    return this.calls.map(({ blob, offset, length }) => `${blob} ${offset / G}+${length / G}`);
  }
}

const sleeps: number[] = [];
const clock: Clock = {
  nowMs: () => 0,
  wallMs: () => 0,
  sleep: async (ms) => {
    sleeps.push(ms);
  },
};

/** Ranges as [blob, first granule, granules], 1 ms apart. */
function planOf(rows: readonly (readonly [number, number, number])[]): TracePlan {
  return {
    count: rows.length,
    blob: Uint16Array.from(rows, (row) => row[0]),
    offset: Float64Array.from(rows, (row) => row[1] * G),
    length: Float64Array.from(rows, (row) => row[2] * G),
    dueUs: Float64Array.from(rows, (_, i) => i * 1000),
  };
}

function setUp(plan: TracePlan, extra: Partial<ReplayOptions> = {}) {
  const lane = new ScriptedLane();
  const blobs = [new ScriptedBlob('a'), new ScriptedBlob('b')];
  // A replay uses only what a ScriptedBlob has.
  const byDigest = new Map(layers.map(({ digest }, i) => [digest, blobs[i] as unknown as Blob]));
  const options: ReplayOptions = {
    trace: { ...traceOf(recordsOf([]), layers), plan },
    blobs: byDigest,
    lane,
    budgetBytes: Infinity,
    clock,
    log: silentLogger,
    ...extra,
  };
  return { lane, blobs, options };
}

/** Ranges that lie too far apart to be joined. */
const scattered = planOf(Array.from({ length: 100 }, (_, i) => [i % 2, i * 40, 1] as const));

test('the first requests have left when startReplay returns, in the order of the plan', async () => {
  const { lane, options } = setUp(scattered, { outstandingMax: 3 });
  const replay = startReplay(options);
  assert.deepEqual(lane.ranges(), ['a 0+1', 'b 40+1', 'a 80+1']);
  assert.equal(replay.end, null);
  for (let i = 0; i < 100; i += 1) {
    assert.ok(lane.calls.length <= i + 3, 'the backlog is bounded');
    lane.calls[i].done();
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.equal(await replay.finished, 'complete');
  assert.deepEqual(
    lane.ranges(),
    Array.from({ length: 100 }, (_, i) => `${'ab'[i % 2]} ${i * 40}+1`),
  );
  assert.equal(replay.counters.done, 100);
  assert.equal(replay.counters.requestedBytes, 100 * G);
});

test('no more is handed over than two windows of the link', async () => {
  const { lane, options } = setUp(scattered);
  let windowBytes = 4 * G;
  const link = () => ({ bytesPerSecond: 0, windowBytes });
  const replay = startReplay({ ...options, lane: Object.assign(lane, { link }) });
  assert.equal(lane.calls.length, 9);
  windowBytes = 8 * G;
  lane.calls[0].done();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(lane.calls.length, 18);
  replay.cancel();
  assert.equal(await replay.finished, 'cancelled');
});

test('a faster link is asked for more at once', async () => {
  const pieces = Array.from({ length: 300 }, (_, i) => [0, i * 4, 4] as const);
  const longest = async (bytesPerSecond: number): Promise<number> => {
    const { lane, options } = setUp(planOf(pieces));
    lane.answer = 'done';
    const link = () => ({ bytesPerSecond, windowBytes: Infinity });
    await startReplay({ ...options, lane: Object.assign(lane, { link }) }).finished;
    return Math.max(...lane.calls.map(({ length }) => length));
  };
  assert.equal(await longest(2_000_000), 128 * 1024);
  assert.ok((await longest(100_000_000)) > 2 * (await longest(10_000_000)));
});

test('what is present is not asked for', async () => {
  const plan = planOf([
    [0, 0, 10],
    [0, 100, 4],
    [1, 0, 4],
  ]);
  const { lane, blobs, options } = setUp(plan);
  lane.answer = 'done';
  for (const granule of [0, 1, 9, 100, 101, 102, 103]) blobs[0].present.add(granule);
  const replay = startReplay(options);
  assert.equal(await replay.finished, 'complete');
  assert.deepEqual(lane.ranges(), ['a 2+7', 'b 0+4']);
  assert.equal(replay.counters.presentBytes, 7 * G);
});

test('the end of a blob may be half a granule', async () => {
  const plan: TracePlan = {
    count: 1,
    blob: Uint16Array.of(0),
    offset: Float64Array.of(3999 * G),
    length: Float64Array.of(G + 100),
    dueUs: Float64Array.of(0),
  };
  const half = setUp(plan);
  half.lane.answer = 'done';
  half.blobs[0].present.add(4000);
  await startReplay(half.options).finished;
  assert.deepEqual(half.lane.ranges(), ['a 3999+1']);
  const whole = setUp(plan);
  whole.lane.answer = 'done';
  await startReplay(whole.options).finished;
  assert.deepEqual(whole.lane.calls[0].length, G + 100);
});

test('stops before its budget is exceeded', async () => {
  const { lane, options } = setUp(scattered, { budgetBytes: 10 * G + 1 });
  lane.answer = 'done';
  const replay = startReplay(options);
  assert.equal(await replay.finished, 'budget');
  assert.equal(lane.calls.length, 10);
  assert.equal(replay.counters.overBudgetBytes, 90 * G, 'the rest of the plan');
});

test('cancel aborts what is in flight and asks for nothing more', async () => {
  const { lane, options } = setUp(scattered, { outstandingMax: 4 });
  const replay = startReplay(options);
  lane.calls[0].done();
  await new Promise((resolve) => setImmediate(resolve));
  replay.cancel();
  assert.equal(await replay.finished, 'cancelled');
  assert.equal(lane.calls.length, 5);
  assert.ok(lane.calls.every((call) => call.signal.aborted));
  assert.equal(replay.counters.failed, 0);
  assert.equal(replay.end, 'cancelled');
});

test('failures are counted, slow the replay down, and end it when nothing else happens', async () => {
  sleeps.length = 0;
  const { lane, options } = setUp(scattered, { outstandingMax: 1 });
  lane.answer = 'fail';
  const replay = startReplay(options);
  assert.equal(await replay.finished, 'failed');
  assert.equal(lane.calls.length, 32);
  assert.equal(replay.counters.failed, 32);
  assert.deepEqual(sleeps.slice(0, 3), [100, 200, 400]);
  assert.equal(Math.max(...sleeps), 5000);
});

test('a fetcher that gives up without an error has failed too', async () => {
  const { lane, options } = setUp(scattered, { outstandingMax: 1 });
  lane.answer = 'give up';
  const replay = startReplay(options);
  assert.equal(await replay.finished, 'failed');
  assert.equal(replay.counters.failed, 32);
});

test('waits while the lane takes no more', async () => {
  const { lane, options } = setUp(scattered);
  lane.answer = 'done';
  const gate = Promise.withResolvers<void>();
  let asked = 0;
  const ready = (): Promise<void> => {
    asked += 1;
    return asked === 5 ? gate.promise : Promise.resolve();
  };
  const prefetch = lane.prefetch.bind(lane);
  const replay = startReplay({ ...options, lane: { prefetch, ready } });
  for (let i = 0; i < 20; i += 1) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(lane.calls.length, 5);
  gate.resolve();
  assert.equal(await replay.finished, 'complete');
  assert.equal(lane.calls.length, 100);
});

test('one failure does not end a replay', async () => {
  const { lane, options } = setUp(scattered, { outstandingMax: 1 });
  const replay = startReplay(options);
  lane.answer = 'done';
  lane.calls[0].fail(new Error('reset'));
  assert.equal(await replay.finished, 'complete');
  assert.equal(replay.counters.failed, 1);
  assert.equal(replay.counters.failedBytes, G);
  assert.equal(replay.counters.done, 99);
  assert.equal(replay.staleRatio, 0);
});

test('a plan for blobs the image does not have touches nothing', async () => {
  const { lane, options } = setUp(scattered);
  lane.answer = 'done';
  const [first] = [...options.blobs];
  const replay = startReplay({ ...options, blobs: new Map([first]) });
  assert.equal(await replay.finished, 'complete');
  assert.equal(lane.calls.length, 50);
  assert.ok(lane.calls.every((call) => call.blob === 'a'));
  assert.equal(replay.counters.foreignRanges, 50);
  assert.equal(replay.counters.foreignBytes, 50 * G);
  assert.equal(replay.staleRatio, 0.5);
  const resized = setUp(scattered);
  const other = { ...options.trace.image, layers: syntheticLayers(2, BLOB_BYTES + 1) };
  const strange = startReplay({
    ...resized.options,
    trace: { ...resized.options.trace, image: other },
  });
  assert.equal(await strange.finished, 'complete');
  assert.equal(resized.lane.calls.length, 0, 'a blob of another size is another blob');
});
