import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { createTapMap, TapDrain, TapProducer } from '../../src/device/tap.ts';

// Goal: what reading threads push arrives once, in order, with a common clock, and a full or
// disabled ring says so. Method: a queue as the model, then real worker threads.

interface Access {
  offset: number;
  length: number;
  hit: boolean;
}

function drainAll(drain: TapDrain): Access[] {
  const accesses: Access[] = [];
  let lastUs = -1;
  drain.drain((timeUs, offset, length, hit) => {
    assert.ok(timeUs >= lastUs, 'a drain is in order of time');
    lastUs = timeUs;
    accesses.push({ offset, length, hit });
  });
  return accesses;
}

test('a ring is a bounded queue that counts what it refuses', () => {
  const step = fc.oneof(
    fc.tuple(fc.nat(2 ** 30), fc.integer({ min: 1, max: 2 ** 25 }), fc.boolean()),
    fc.constant('drain' as const),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const tap = createTapMap(1, { capacity: 8 });
      const drain = new TapDrain(tap);
      drain.setEnabled(true);
      const producer = new TapProducer(tap, 0);
      let model: Access[] = [];
      let lost = 0;
      for (const step of steps) {
        if (step === 'drain') {
          assert.deepEqual(drainAll(drain), model);
          model = [];
          continue;
        }
        const [offset, length, hit] = step;
        const accepted = producer.push(offset, length, hit);
        assert.equal(accepted, model.length < 8);
        if (accepted) model.push({ offset, length, hit });
        else lost += 1;
      }
      assert.deepEqual(drainAll(drain), model);
      assert.equal(drain.lost, lost);
    }),
  );
});

test('a disabled tap takes nothing and loses nothing', () => {
  const tap = createTapMap(2, { capacity: 4 });
  const drain = new TapDrain(tap);
  const producer = new TapProducer(tap, 1);
  for (let i = 0; i < 10; i += 1) assert.equal(producer.push(0, 512, true), true);
  drain.setEnabled(true);
  producer.push(1024, 512, false);
  drain.setEnabled(false);
  producer.push(2048, 512, false);
  assert.deepEqual(drainAll(drain), [{ offset: 1024, length: 512, hit: false }]);
  assert.equal(drain.lost, 0);
});

test('rings of several producers are merged by time', () => {
  const tap = createTapMap(3);
  const drain = new TapDrain(tap);
  drain.setEnabled(true);
  const producers = [0, 1, 2].map((ring) => new TapProducer(tap, ring));
  const pushed: number[] = [];
  for (let i = 0; i < 300; i += 1) {
    producers[(i * i) % 3].push(i * 512, 512, true);
    pushed.push(i * 512);
    // Entries of one microsecond may come in any order of rings: keep them apart.
    const until = performance.now() + 0.02;
    while (performance.now() < until);
  }
  assert.deepEqual(
    drainAll(drain).map((access) => access.offset),
    pushed,
  );
});

test('worker threads push on the clock of the main thread, past a wrap of the ring', async () => {
  const tap = createTapMap(3, { capacity: 256 });
  const drain = new TapDrain(tap);
  drain.setEnabled(true);
  const startedUs = drain.nowUs();
  const code = `
    import { workerData } from 'node:worker_threads';
    const { TapProducer } = await import(workerData.module);
    const producer = new TapProducer(workerData.tap, workerData.ring);
    for (let i = 0; i < 2000; i += 1) {
      while (!producer.push(i * 512, workerData.ring * 512, i % 2 === 0)) {
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
      }
    }`;
  const module = new URL('../../src/device/tap.ts', import.meta.url).href;
  const workers = [1, 2].map(
    (ring) =>
      new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`), {
        workerData: { module, tap, ring },
      }),
  );
  const exits = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)));
  const next = new Map([
    [512, 0],
    [1024, 0],
  ]);
  const take = (): void => {
    drain.drain((timeUs, offset, length, hit) => {
      assert.ok(timeUs >= startedUs && timeUs <= drain.nowUs() + 1);
      const expected = next.get(length) ?? -1;
      assert.equal(offset, expected * 512);
      assert.equal(hit, expected % 2 === 0);
      next.set(length, expected + 1);
    });
  };
  const timer = setInterval(take, 1);
  try {
    assert.deepEqual(await Promise.all(exits), [0, 0]);
  } finally {
    clearInterval(timer);
  }
  take();
  assert.deepEqual([...next.values()], [2000, 2000]);
});
