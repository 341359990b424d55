import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { cliJson, cliOutput, serveRegistry } from '../support/cli.ts';
import type { PlayOutput } from '../support/play.ts';
import { scratchOf } from '../support/scratch.ts';
import { makeTestImage } from '../support/test-image.ts';

// Goal: a trace belongs to layers, however an image was named when it was recorded.
// Method: one image by reference, by a configuration with remote lowers and by one with files; each
// workload is recorded under one name and looked for under the others.

test('a trace is found under every name of the same layers', async (t) => {
  const scratch = scratchOf(t);
  const registry = await serveRegistry(scratch, scratch.path('registry'));
  const image = await makeTestImage(scratch, registry);
  const remote = scratch.path('remote.v1.json');
  await cliOutput(scratch, ['image', 'config', image.reference, '--output', remote]);
  const list = scratch.path('reads');
  writeFileSync(list, '0 4096\n1048576 65536\n');
  const play = async (target: string, workload: string): Promise<PlayOutput['report']> => {
    const folders = ['--cache', 'none', '--trace-dir', scratch.path('traces')];
    const words = ['--mode', 'auto', '--workload', workload];
    const args = ['play', target, '--reads', list, ...folders, ...words];
    return (await cliJson<PlayOutput>(scratch, args)).report;
  };
  const names = [image.reference, remote, image.config];
  for (const [i, recordedAs] of names.entries()) {
    const recorded = await play(recordedAs, `workload${i}`);
    assert.equal(recorded.mode, 'record');
    for (const name of names) {
      const replayed = await play(name, `workload${i}`);
      assert.equal(replayed.mode, 'replay', `${recordedAs} as ${name}`);
      assert.equal(replayed.trace?.path, recorded.trace?.path);
    }
  }
});
