import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { test, type TestContext } from 'node:test';
import { createNotifier } from '../../src/daemon/notifier.ts';
import { DatagramReceiver } from '../support/datagram-receiver.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: the service manager hears what sd_notify(3) specifies, over paths and abstract names; a
// manager that is away, slow or absent does no harm.
// Method: a real datagram socket of the kernel at the other end.

function receiver(t: TestContext, name: string): DatagramReceiver {
  const manager = new DatagramReceiver(name);
  t.after(() => manager.close());
  return manager;
}

for (const kind of ['path', 'abstract'] as const) {
  test(`every state arrives, over a socket with a name of kind ${kind}`, (t) => {
    const path = scratchOf(t).path('notify');
    const name = kind === 'path' ? path : `@${path}`;
    const manager = receiver(t, name);
    const notifier = createNotifier({ NOTIFY_SOCKET: name });
    t.after(() => notifier.close());
    assert.ok(notifier.isActive);
    notifier.status('opening\ndevices');
    notifier.starting('attaching\nthem', 90_000);
    notifier.ready('2 devices');
    notifier.reloading();
    notifier.stopping();
    const [status, starting, ready, reloading, stopping] = manager.take();
    assert.equal(status, 'STATUS=opening devices');
    assert.equal(starting, 'EXTEND_TIMEOUT_USEC=90000000\nSTATUS=attaching them');
    assert.equal(ready, 'READY=1\nSTATUS=2 devices');
    assert.match(reloading, /^RELOADING=1\nMONOTONIC_USEC=\d+$/);
    assert.equal(stopping, 'STOPPING=1');
  });
}

test('signs of life come while the process says it lives', async (t) => {
  const name = `@${scratchOf(t).path('watchdog')}`;
  const manager = receiver(t, name);
  const env = { NOTIFY_SOCKET: name, WATCHDOG_USEC: '15000', WATCHDOG_PID: String(process.pid) };
  const notifier = createNotifier(env);
  t.after(() => notifier.close());
  assert.equal(notifier.watchdogUs, 15_000);
  let isAlive = true;
  notifier.ready('', () => isAlive);
  const seen = manager.take();
  while (!seen.includes('WATCHDOG=1')) {
    await sleep(1);
    seen.push(...manager.take());
  }
  assert.equal(seen[0], 'READY=1');
  isAlive = false;
  manager.take();
  await sleep(20);
  assert.deepEqual(manager.take(), []);
});

test("another process's watchdog is not ours", (t) => {
  const name = `@${scratchOf(t).path('other')}`;
  const notifier = createNotifier({ NOTIFY_SOCKET: name, WATCHDOG_USEC: '1', WATCHDOG_PID: '1' });
  notifier.close();
  assert.equal(notifier.watchdogUs, 0);
});

test('states wait, in order, for a manager whose queue is full', async (t) => {
  const name = `@${scratchOf(t).path('slow')}`;
  const manager = receiver(t, name);
  const notifier = createNotifier({ NOTIFY_SOCKET: name });
  t.after(() => notifier.close());
  // The kernel's queue holds 10, or more where it was raised.
  const sent = Array.from({ length: 60 }, (_, i) => `STATUS=${i}`);
  for (const [i] of sent.entries()) notifier.status(String(i));
  const seen: string[] = [];
  while (seen.length < sent.length) {
    seen.push(...manager.take());
    await sleep(1);
  }
  assert.deepEqual(seen, sent);
});

test('without a manager, or with one that is gone, nothing happens', (t) => {
  const path = scratchOf(t).path('gone');
  const manager = receiver(t, path);
  const names = [undefined, '', 'relative', 'vsock:2:1234', path, `/${'x'.repeat(200)}`];
  manager.close();
  for (const name of names) {
    const notifier = createNotifier({ ...(name === undefined ? {} : { NOTIFY_SOCKET: name }) });
    notifier.ready();
    notifier.stopping();
    notifier.close();
    notifier.status('after the end');
    assert.equal(notifier.isActive, name === path);
  }
});
