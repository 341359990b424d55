import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Worker } from 'node:worker_threads';
import { BlockingThread } from '../../native/blocking-thread.ts';
import { FuseThreads } from '../../src/frontend/fuse/threads.ts';

// Goal: a thread that uses koffi ends by itself, never killed, whenever it is closed; and a process
// that ends does not stop one where that would abort the process.
// Method: threads closed at moments from before they load to after, told apart by their exit code (1
// when they were killed); a process that exits while its thread is where a stop is fatal.

/** What a thread that was not terminated exits with. */
const BY_ITSELF = 0;
const MOMENTS = 8;

/** Exit codes of the threads that `use` starts. */
async function exitCodes(use: (moment: number) => void | Promise<void>): Promise<number[]> {
  const exits: Promise<unknown[]>[] = [];
  const see = (worker: Worker): void => void exits.push(once(worker, 'exit'));
  process.on('worker', see);
  try {
    for (let moment = 0; moment < MOMENTS; moment += 1) await use(moment);
    // Unref'd threads keep no process alive.
    const alive = setInterval(() => undefined, 1000);
    const codes = await Promise.all(exits).finally(() => clearInterval(alive));
    return codes.map(([code]) => code as number);
  } finally {
    process.off('worker', see);
  }
}

test('a blocking thread that is closed at any moment ends by itself', async () => {
  const codes = await exitCodes(async (moment) => {
    const thread = new BlockingThread();
    thread.start();
    await sleep(moment * 20);
    thread.close();
  });
  assert.deepEqual(codes, Array<number>(MOMENTS).fill(BY_ITSELF));
});

test('threads of a front end that is never started end by themselves', async () => {
  const codes = await exitCodes(async (moment) => {
    const threads = new FuseThreads(1);
    await sleep(moment * 20);
    threads.close();
  });
  assert.deepEqual(codes, Array<number>(2 * MOMENTS).fill(BY_ITSELF));
});

test('close leaves no call without an answer, and the next call has a new thread', async () => {
  const thread = new BlockingThread();
  const first = thread.call('readHead', '/dev/zero', 16);
  assert.deepEqual(Buffer.from(await first), Buffer.alloc(16));
  const late = [thread.call('readHead', '/dev/zero', 16), thread.call('readHead', '/dev/zero', 16)];
  thread.close();
  for (const outcome of await Promise.allSettled(late)) {
    if (outcome.status === 'fulfilled') continue;
    assert.equal((outcome.reason as { code: string }).code, 'ERR_BLOCKING_THREAD');
  }
  assert.equal((await thread.call('readHead', '/dev/zero', 1)).length, 1, 'a new thread');
  thread.close();
});

test('a process that exits waits for threads that must not be stopped', async () => {
  const program = fileURLToPath(new URL('./exiting-process.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [program]);
  assert.equal(stdout, 'exits\npast it\n');
});
