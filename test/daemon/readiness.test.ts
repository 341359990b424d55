import assert from 'node:assert/strict';
import { test } from 'node:test';
import { systemClock } from '../../src/base/clock.ts';
import { daemonLimits } from '../../src/base/limits.ts';
import { silentLogger } from '../../src/base/log.ts';
import { tellReady } from '../../src/daemon/readiness.ts';

// Goal: a service manager is told that the daemon is ready when its devices are there again, or when
// they take too long, and not when the daemon is to end before that.
// Method: a daemon whose devices come when the test says so, and a clock of the test's own.

function setting() {
  const adopted = Promise.withResolvers<void>();
  const timeout = Promise.withResolvers<void>();
  const ending = new AbortController();
  const said: string[] = [];
  const clock = {
    ...systemClock,
    sleep: async (ms: number, signal?: AbortSignal): Promise<void> => {
      said.push(`wait ${ms}`);
      signal?.addEventListener('abort', () => timeout.reject(new Error('aborted')));
      await timeout.promise;
    },
  };
  const notifier = {
    starting: (status: string) => void said.push(status),
    ready: (status = '') => void said.push(status),
  };
  const daemon = { adopted: adopted.promise, socketPath: '/s', devices: { list: () => [] } };
  const options = { notifier, clock, log: silentLogger, signal: ending.signal };
  const told = tellReady(daemon as unknown as Parameters<typeof tellReady>[0], options);
  return { adopted, timeout, ending, said, told };
}

const BEGUN = ['attaching devices again', `wait ${daemonLimits.adoptMsMax}`];

test('ready when every device of the former daemon is attached or has failed', async () => {
  const { adopted, said, told } = setting();
  await new Promise(setImmediate);
  assert.deepEqual(said, BEGUN);
  adopted.resolve();
  await told;
  assert.deepEqual(said, [...BEGUN, 'serving on /s']);
});

test('ready without devices that take too long', async () => {
  const { timeout, said, told } = setting();
  timeout.resolve();
  await told;
  assert.deepEqual(said, [...BEGUN, 'serving on /s']);
});

test('never ready when the daemon ends before that', async () => {
  const { ending, said, told } = setting();
  ending.abort();
  await told;
  assert.deepEqual(said, BEGUN);
});
