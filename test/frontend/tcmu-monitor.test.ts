import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { test, type TestContext } from 'node:test';
import { ReplaybdError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { TcmuMonitor, type TcmuHandlers } from '../../src/frontend/tcmu/kernel/monitor.ts';
import type { UioDevice } from '../../src/frontend/tcmu/kernel/uio.ts';
import { FakeTcmu, type FakeDevice } from '../support/fake-tcmu.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: every event of a device that is meant for us is answered, whatever has happened to the device,
// to other events or to the monitor; nobody hangs in the kernel.
// Method: a folder that looks like /sys, events that the test makes, and handlers that it ends.

const { EINTR, EBUSY, ECANCELED } = constants.errno;

/** Notes what it is asked to do. */
class Handlers implements TcmuHandlers {
  readonly done: string[] = [];
  /** What adding waits for. */
  gate: Promise<void> = Promise.resolve();

  accepts({ name }: UioDevice): boolean {
    return name.subtype === 'overlaybd';
  }

  async added({ minor }: UioDevice, isFound: boolean): Promise<void> {
    this.done.push(`${isFound ? 'found' : 'added'} ${minor}`);
    await this.gate;
  }

  async removed({ minor }: UioDevice): Promise<void> {
    await Promise.resolve();
    this.done.push(`removed ${minor}`);
  }

  async reconfigured({ minor }: UioDevice): Promise<void> {
    await Promise.resolve();
    this.done.push(`reconfigured ${minor}`);
  }
}

function bench(t: TestContext, ...present: FakeDevice[]) {
  const system = new FakeTcmu(scratchOf(t).path('sys'));
  for (const device of present) system.make(device);
  const handlers = new Handlers();
  const start = (): TcmuMonitor => {
    const monitor = TcmuMonitor.start({
      ...{ handlers, log: silentLogger, events: system, root: system.root },
    });
    t.after(() => monitor.close());
    return monitor;
  };
  return { system, handlers, start };
}

const device = (minor: number, config = 'overlaybd//c.json'): FakeDevice => ({ minor, config });

test('devices that are there are found, and events are answered with what came of them', async (t) => {
  const { system, handlers, start } = bench(t, device(0), device(1, 'other/x'));
  start();
  system.make(device(2));
  system.tell('added', device(2));
  await system.answered(1);
  handlers.gate = Promise.reject(new ReplaybdError('ERR_X', 'x', { errno: 'EBUSY' }));
  system.make(device(3));
  system.tell('added', device(3));
  await system.answered(2);
  assert.deepEqual(handlers.done, ['found 0', 'added 2', 'added 3']);
  assert.deepEqual(system.answers, [
    ['added', 102, 0],
    ['added', 103, -EBUSY],
  ]);
});

test('a device that nobody knows is answered for, and one of others is not', async (t) => {
  const { system, handlers, start } = bench(t);
  start();
  system.tell('removed', device(5, 'other/x'));
  system.tell('reconfigured', device(6), { sizeBytes: 512 });
  system.tell('removed', device(6));
  await system.answered(2);
  assert.deepEqual(handlers.done, ['reconfigured 6', 'removed 6']);
  assert.deepEqual(
    system.answers.map(([kind, index]) => [kind, index]),
    [
      ['reconfigured', 106],
      ['removed', 106],
    ],
  );
});

test('a device whose opening failed is answered for when it is removed', async (t) => {
  const { system, handlers, start } = bench(t, device(0));
  handlers.gate = Promise.reject(new Error('no layer'));
  start();
  system.tell('removed', device(0));
  await system.answered(1);
  assert.deepEqual(handlers.done, ['found 0', 'removed 0']);
  assert.deepEqual(system.answers, [['removed', 100, 0]]);
});

test('lost events are made up for by looking again', async (t) => {
  const { system, handlers, start } = bench(t, device(0), device(1), device(2));
  start();
  // One made, one about to be removed, one gone; what the settings of the last should be was lost.
  system.make(device(3));
  system.removeFolder(device(0));
  system.removeFolder(device(1));
  system.removeUio(device(1));
  system.lose();
  await system.answered(4);
  const answers = system.answers.map(([kind, index, status]) => `${kind} ${index} ${status}`);
  assert.deepEqual(answers.sort(), [
    'added 103 0',
    `reconfigured 102 ${-EINTR}`,
    'removed 100 0',
    'removed 101 0',
  ]);
  assert.deepEqual(handlers.done.slice(3).sort(), ['added 3', 'removed 0', 'removed 1']);
});

test('a device that vanishes while it is looked at concerns no other', async (t) => {
  const { system, handlers, start } = bench(t, device(0), device(1));
  // Its name is there, its folder is not.
  system.removeFolder(device(0));
  start();
  system.make(device(2));
  system.tell('added', device(2));
  await system.answered(1);
  assert.deepEqual(handlers.done, ['found 1', 'added 2']);
  const answer = system.answer.bind(system);
  system.answer = (kind, index, status) => {
    if (kind === 'reconfigured' && index === 101) throw new Error('EIO');
    answer(kind, index, status);
  };
  system.make(device(3));
  system.lose();
  await system.answered(3);
  assert.ok(handlers.done.includes('added 3'));
});

test('what waits for an answer fails when the monitor is closed, once', async (t) => {
  const { system, handlers, start } = bench(t);
  const opening = Promise.withResolvers<void>();
  handlers.gate = opening.promise;
  const monitor = start();
  system.make(device(0));
  system.tell('added', device(0));
  system.tell('removed', device(1));
  await system.answered(1);
  assert.deepEqual(system.answers, [['removed', 101, 0]]);
  monitor.close();
  assert.deepEqual(system.answers.slice(1), [['added', 100, -ECANCELED]]);
  assert.ok(system.isClosed);
  opening.reject(new Error('ended'));
  await new Promise(setImmediate);
  assert.equal(system.answers.length, 2);
});
