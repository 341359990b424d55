import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { pollUpper } from '../../src/image/lsmt/upper-poll.ts';

// Goal: one timer has every writable layer looked at, and works for those that are due, each on behalf
// of its own device. Method: a timer that the test turns.

test('what is due is worked for in its own context, until it is ended', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const devices = new AsyncLocalStorage<string>();
  const due = new Set<string>();
  const worked: string[] = [];
  const ends = new Map<string, () => void>();
  for (const id of ['first', 'second', 'third']) {
    devices.run(id, () => {
      const work = (): void => void worked.push(`${id} by ${devices.getStore() ?? 'nobody'}`);
      ends.set(
        id,
        pollUpper(() => {
          assert.equal(devices.getStore(), undefined, 'nobody is asked on behalf of another');
          return due.has(id);
        }, work),
      );
    });
  }
  const poll = async (): Promise<string[]> => {
    t.mock.timers.tick(250);
    await nextTurn();
    return worked.splice(0);
  };
  assert.deepEqual(await poll(), []);
  due.add('first').add('third');
  assert.deepEqual(await poll(), ['first by first', 'third by third']);
  ends.get('first')?.();
  due.delete('third');
  assert.deepEqual(await poll(), []);
  due.add('second');
  assert.deepEqual(await poll(), ['second by second']);
  for (const end of ends.values()) end();
  assert.deepEqual(await poll(), []);
  // The next one begins anew.
  const end = pollUpper(
    () => true,
    () => void worked.push('fourth'),
  );
  assert.deepEqual(await poll(), ['fourth']);
  end();
});
