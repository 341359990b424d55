import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import fc from 'fast-check';
import { Ticker, type Turn } from '../../src/daemon/ticker.ts';
import { createTapMap, TapDrain } from '../../src/device/tap.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: who has something to do is called in the next tick, whoever says so, and who has nothing is not.
// Method: a model with a clock that the test turns; then reading threads that ring.

const TURNS = 5;

interface ModelTurn {
  turn: Turn;
  isEnded: boolean;
  isCalled: boolean;
  dueMs: number;
  nextDueMs: number;
}

function ring({ bell }: Turn): void {
  Atomics.store(new Int32Array(bell.words), bell.index, 1);
}

test('a tick calls those that are due, were woken or rung, and nobody else', () => {
  const index = fc.nat(TURNS - 1);
  const step = fc.oneof(
    fc.record({ kind: fc.constantFrom('ring', 'wake', 'end', 'reserve'), index }),
    fc.record({ kind: fc.constant('due' as const), index, ms: fc.nat(100) }),
    fc.record({ kind: fc.constant('tick' as const), index, ms: fc.nat(60) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      let nowMs = 1000;
      const ticker = new Ticker(() => nowMs);
      const start = (): ModelTurn => {
        const turn = ticker.reserve();
        const model = { turn, isEnded: false, isCalled: false, dueMs: -1, nextDueMs: Infinity };
        turn.start(
          () => {
            model.isCalled = true;
            return model.nextDueMs;
          },
          () => assert.fail('nothing throws'),
        );
        return model;
      };
      const turns = Array.from({ length: TURNS }, start);
      try {
        for (const one of steps) {
          const model = turns[one.index];
          if (one.kind === 'due') model.nextDueMs = nowMs + one.ms;
          else if (one.kind === 'reserve' && model.isEnded) turns[one.index] = start();
          else if (one.kind === 'end') {
            model.turn.end();
            model.isEnded = true;
          } else if (one.kind === 'ring' || one.kind === 'wake') {
            if (one.kind === 'wake') model.turn.wake();
            else if (!model.isEnded) ring(model.turn);
            model.dueMs = -1;
          } else if (one.kind === 'tick') {
            nowMs += one.ms;
            ticker.tick();
            for (const { turn: _, ...found } of turns) {
              const isDue = !found.isEnded && found.dueMs <= nowMs;
              assert.equal(found.isCalled, isDue);
            }
            for (const each of turns) {
              if (each.isCalled) each.dueMs = each.nextDueMs;
              each.isCalled = false;
            }
          }
        }
      } finally {
        for (const { turn } of turns) turn.end();
      }
    }),
  );
});

test('one that throws is not called again, and the others are', () => {
  const ticker = new Ticker(() => 0);
  const faults: unknown[] = [];
  const calls = [0, 0];
  const turns = calls.map(() => ticker.reserve());
  turns.forEach((turn, i) => {
    turn.start(
      () => {
        calls[i] += 1;
        if (i === 0) throw new Error('a defect');
        return Infinity;
      },
      (error) => faults.push(error),
    );
  });
  for (let i = 0; i < 3; i += 1) {
    turns.forEach(ring);
    ticker.tick();
  }
  assert.deepEqual(calls, [1, 3]);
  assert.match(String(faults), /^Error: a defect$/);
  for (const turn of turns) turn.end();
});

test('a turn that ends while it works, or wakes itself, is taken at its word', () => {
  const ticker = new Ticker(() => 0);
  let calls = 0;
  const turn = ticker.reserve();
  turn.start(
    () => {
      calls += 1;
      if (calls < 3) turn.wake();
      else turn.end();
      return calls < 3 ? Infinity : -Infinity;
    },
    () => undefined,
  );
  for (let i = 0; i < 6; i += 1) ticker.tick();
  assert.equal(calls, 3);
  turn.wake();
  const other = ticker.reserve();
  assert.equal(other.bell.index, turn.bell.index, 'the place is free again');
  turn.wake();
  turn.end();
  ticker.tick();
  assert.equal(calls, 3);
  other.end();
});

test('there is a bound', () => {
  const ticker = new Ticker(() => 0);
  assert.throws(
    () => {
      for (;;) ticker.reserve();
    },
    { code: 'ERR_DEVICES_MAX' },
  );
});

test('no entry of reading threads is left behind by a bell', { timeout: 60_000 }, async (t) => {
  const scratch = scratchOf(t);
  const ticker = new Ticker(() => 0);
  const turn = ticker.reserve();
  scratch.atEnd(() => turn.end());
  const tap = createTapMap(3, { capacity: 1024, bell: turn.bell });
  const drain = new TapDrain(tap);
  drain.setEnabled(true);
  const entries = 5000;
  const counts = new Map<number, number>();
  turn.start(
    () => {
      drain.drain((_, offset, length) => {
        assert.equal(offset, (counts.get(length) ?? 0) * 512);
        counts.set(length, (counts.get(length) ?? 0) + 1);
      });
      return Infinity;
    },
    (error) => assert.fail(String(error)),
  );
  // Each thread waits for its entry to be taken now and then: one that is not rung for is never taken.
  const code = `
    import { workerData } from 'node:worker_threads';
    const { TapProducer } = await import(workerData.module);
    const producer = new TapProducer(workerData.tap, workerData.ring);
    const words = new Int32Array(workerData.tap.rings[workerData.ring], 0, 64);
    for (let i = 0; i < workerData.entries; i += 1) {
      while (!producer.push(i * 512, workerData.ring * 512, true));
      if (i % 3 === 0) while (Atomics.load(words, 16) !== Atomics.load(words, 32));
    }`;
  const module = new URL('../../src/device/tap.ts', import.meta.url).href;
  const exits = [1, 2].map(async (ring) => {
    const url = new URL(`data:text/javascript,${encodeURIComponent(code)}`);
    const worker = new Worker(url, { workerData: { module, tap, ring, entries } });
    return await new Promise((resolve) => worker.once('exit', resolve));
  });
  let isOver = false;
  const over = Promise.all(exits).finally(() => (isOver = true));
  while (!isOver) {
    for (let i = 0; i < 1000; i += 1) ticker.tick();
    await nextTurn();
  }
  assert.deepEqual(await over, [0, 0]);
  ticker.tick();
  assert.deepEqual([...counts].sort(), [
    [1024, entries],
    [512, entries],
  ]);
});
