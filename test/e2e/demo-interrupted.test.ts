import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { leftovers } from '../support/attached.ts';
import { CliProcess } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: Ctrl-C ends the demonstration at any point, and nothing of it stays: no mounts, no loop
// devices, no folders, no processes.
// Method: SIGINT while it builds its image, and while its program runs from the mounted device (without
// privileges: while reads are played) over a link that is slow enough to be met half way.

const isMounting = needs('root') === false;
const SLOW = ['--latency', '40', '--rate', '30'];

function childrenOf(pid: number): number[] {
  const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

test('interrupted while it builds', async (t) => {
  const scratch = scratchOf(t);
  const env = { TMPDIR: scratch.folder };
  const demo = new CliProcess(scratch, ['demo', '--nbd', ...SLOW], { env });
  await demo.untilSaid('building');
  demo.kill('SIGINT');
  const { code, stdout } = await demo.ended;
  assert.equal(code, 130);
  assert.equal(stdout, '');
  assert.deepEqual(readdirSync(scratch.folder), []);
});

test('interrupted while its guest reads', async (t) => {
  const scratch = scratchOf(t);
  const env = { TMPDIR: scratch.folder };
  const demo = new CliProcess(scratch, ['demo', ...SLOW], { env });
  await demo.untilSaid('1/3');
  let children: number[] = [];
  while (isMounting && (leftovers(scratch.folder).length === 0 || children.length === 0)) {
    await sleep(20);
    children = childrenOf(demo.pid);
  }
  demo.kill('SIGINT');
  assert.equal((await demo.ended).code, 130);
  for (const child of children) assert.ok(!existsSync(`/proc/${child}`), 'the program has ended');
  assert.deepEqual(leftovers(scratch.folder), []);
  assert.deepEqual(readdirSync(scratch.folder), []);
});
