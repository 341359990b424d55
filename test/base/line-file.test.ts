import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { test } from 'node:test';
import type { Clock } from '../../src/base/clock.ts';
import { systemClock } from '../../src/base/clock.ts';
import { lineFileLimits } from '../../src/base/limits.ts';
import { LineFile } from '../../src/base/line-file.ts';
import { createLogger, openServiceLog } from '../../src/base/log.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: lines reach a file in order, whatever log rotation does to it; a disk that refuses them
// costs lines, never time or memory, and those that are lost are counted.
// Method: real files and folders that are renamed, missing, or /dev/full; retries without waiting.

/** Retries at once, and tells how often. */
function impatientClock(): Clock & { sleeps: number } {
  return {
    ...systemClock,
    sleeps: 0,
    async sleep(ms, signal) {
      if (ms !== lineFileLimits.retryMs) return await systemClock.sleep(ms, signal);
      this.sleeps += 1;
      return await systemClock.sleep(1, signal);
    },
  };
}

async function until(isDone: () => boolean): Promise<void> {
  while (!isDone()) await systemClock.sleep(1);
}

test('lines arrive in order, appended', async (t) => {
  const path = scratchOf(t).path('log');
  for (const half of [0, 1]) {
    const file = new LineFile(path);
    for (let i = 0; i < 1000; i += 1) file.write(`${half * 1000 + i}\n`);
    await file.close();
  }
  const expected = Array.from({ length: 2000 }, (_, i) => `${i}\n`).join('');
  assert.equal(readFileSync(path, 'utf8'), expected);
});

test('after a rotation lines go to the new file, and none is lost', async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('log');
  const file = new LineFile(path);
  file.write('1\n');
  await until(() => readIfThere(path) === '1\n');
  renameSync(path, `${path}.1`);
  file.write('2\n');
  await until(() => readIfThere(`${path}.1`) === '1\n2\n');
  file.reopen();
  file.write('3\n');
  await file.close();
  assert.equal(readFileSync(path, 'utf8'), '3\n');
  assert.equal(readFileSync(`${path}.1`, 'utf8'), '1\n2\n');
});

test('a rotation that cannot open the new file keeps the old one', async (t) => {
  const scratch = scratchOf(t);
  mkdirSync(scratch.path('logs'));
  const path = scratch.path('logs', 'log');
  const troubles: string[] = [];
  const file = new LineFile(path, { onTrouble: (message) => troubles.push(message) });
  file.write('1\n');
  await until(() => readIfThere(path) === '1\n');
  renameSync(scratch.path('logs'), scratch.path('moved'));
  file.reopen();
  file.write('2\n');
  await until(() => readIfThere(scratch.path('moved', 'log')) === '1\n2\n');
  await file.close();
  assert.equal(troubles.length, 1);
  assert.match(troubles[0], /log: cannot be written: ENOENT/);
});

test('lines wait for a folder that is made later; trouble is told once', async (t) => {
  const scratch = scratchOf(t);
  const troubles: string[] = [];
  const clock = impatientClock();
  const file = new LineFile(scratch.path('later', 'log'), {
    clock,
    onTrouble: (message) => troubles.push(message),
  });
  file.write('waited\n');
  await until(() => clock.sleeps > 3);
  mkdirSync(scratch.path('later'));
  await until(() => readIfThere(scratch.path('later', 'log')) === 'waited\n');
  await file.close();
  assert.equal(troubles.length, 1);
});

test('a full disk bounds the queue; what is dropped is counted', async (t) => {
  const scratch = scratchOf(t);
  const path = scratch.path('log');
  symlinkSync('/dev/full', path);
  const clock = impatientClock();
  const file = new LineFile(path, { clock });
  const line = `${'x'.repeat(1023)}\n`;
  const fitting = lineFileLimits.waitingBytesMax / line.length;
  for (let i = 0; i < fitting + 7; i += 1) file.write(line);
  await until(() => clock.sleeps > 0);
  rmSync(path);
  file.reopen();
  await until(() => (readIfThere(path) ?? '').endsWith('7 lines were dropped\n'));
  await file.close();
  const lines = readFileSync(path, 'utf8').split('\n');
  assert.equal(lines.length, fitting + 2, 'all that fitted, the notice, the end');
});

test('closing does not wait for ever', async (t) => {
  const clock: Clock = {
    ...systemClock,
    sleep: async (ms, signal) =>
      ms === lineFileLimits.closeMsMax ? undefined : await systemClock.sleep(ms, signal),
  };
  const file = new LineFile(scratchOf(t).path('none', 'log'), { clock });
  file.write('lost\n');
  await file.close();
  file.write('too late, and no error\n');
});

test('what waits can be written at once', async (t) => {
  const path = scratchOf(t).path('log');
  const file = new LineFile(path);
  file.write('1\n');
  await until(() => readIfThere(path) === '1\n');
  await systemClock.sleep(5);
  file.write('2\n');
  file.write('3\n');
  file.flushSync();
  assert.match(readFileSync(path, 'utf8'), /3\n/);
  await file.close();
  assert.equal(readFileSync(path, 'utf8'), '1\n2\n3\n');
});

test('a service log is JSON lines of its level, and follows a rotation', async (t) => {
  const path = scratchOf(t).path('log');
  const service = openServiceLog({ path, level: 'info' });
  service.log.debug('not this');
  service.log.info({ device: 'one' }, 'said');
  await until(() => (readIfThere(path) ?? '').endsWith('\n'));
  renameSync(path, `${path}.1`);
  service.reopen();
  service.log.warn('after');
  await service.close();
  const first = JSON.parse(readFileSync(`${path}.1`, 'utf8')) as Record<string, unknown>;
  assert.equal(first.msg, 'said');
  assert.equal(first.device, 'one');
  assert.match(readFileSync(path, 'utf8'), /"msg":"after"/);
  assert.equal(createLogger().isLevelEnabled('info'), false);
});

function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}
