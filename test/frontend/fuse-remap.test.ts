import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { systemClock } from '../../src/base/clock.ts';
import type { SharedDevice } from '../../src/device/block-device.ts';
import { RemapAnnouncer, RemapWatch } from '../../src/frontend/fuse/remap.ts';

// Goal: a worker uses new maps from the first request after they were announced, and whoever announced
// them learns that no worker uses older ones, not a moment too early.
// Method: both sides in one thread, taking turns by hand; maps that are marked by a number.

function maps(mark: number): SharedDevice {
  return { mark } as unknown as SharedDevice;
}

function pair(t: TestContext, workers: number): { main: RemapAnnouncer; watches: RemapWatch[] } {
  const main = new RemapAnnouncer(workers, systemClock);
  t.after(() => main.close());
  const lines = Array.from({ length: workers }, () => main.line());
  t.after(() => lines.forEach(({ port }) => port.close()));
  return { main, watches: lines.map((line) => new RemapWatch(line)) };
}

/** Whether a promise is still open after a while in which it would have been settled. */
async function isPending(work: Promise<unknown>): Promise<boolean> {
  return (await Promise.race([work, sleep(30, 'pending')])) === 'pending';
}

test('idle workers are not waited for, and take the newest maps once', async (t) => {
  const { main, watches } = pair(t, 2);
  for (const watch of watches) assert.equal(watch.enter(), null);
  for (const watch of watches) watch.leave();
  await main.announce(maps(1));
  await main.announce(maps(2));
  for (const watch of watches) {
    assert.deepEqual(watch.enter(), maps(2));
    watch.leave();
    assert.equal(watch.enter(), null);
  }
});

test('a worker at work is waited for until it waits or goes on with new maps', async (t) => {
  const { main, watches } = pair(t, 2);
  const [first, second] = watches;
  first.enter();
  second.enter();
  const announced = main.announce(maps(1));
  assert.ok(await isPending(announced));
  first.leave();
  assert.ok(await isPending(announced), 'the second is still at it');
  second.leave();
  assert.deepEqual(second.enter(), maps(1), 'at work again, with the new ones');
  await announced;
});

test('a worker that ended at work is not waited for', async (t) => {
  const main = new RemapAnnouncer(1, systemClock);
  t.after(() => main.close());
  const line = main.line();
  t.after(() => line.port.close());
  new RemapWatch(line).enter();
  const announced = main.announce(maps(1));
  assert.ok(await isPending(announced));
  main.ended(line);
  await announced;
});
