import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { encodeTrace } from '../../src/trace/encode.ts';
import { cli, cliJson } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';
import { longestPlan, recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: whoever uses a trace whose plan is as long as a plan can be is told that it may lack ranges.
// Method: the tool on such a trace, and on one that is whole.

const WHOLE = fileURLToPath(new URL('../../traces/node-service.trace', import.meta.url));
const LINK = ['--bandwidth', '1gbit', '--rtt', '5ms'];
const TOLD = /the plan has 1000000 ranges, .*left out/;

test('commands say that a plan is truncated', async (t) => {
  const scratch = scratchOf(t);
  const file = scratch.path('long.trace');
  const records = recordsOf([{ timeUs: 1_000_000, lba: 0, sectors: 8, layer: 0 }]);
  const trace = { ...traceOf(records, syntheticLayers(1, 2 ** 34)), plan: longestPlan() };
  writeFileSync(file, encodeTrace(trace));
  for (const words of [['check'], ['simulate', ...LINK]]) {
    const [name = '', ...flags] = words;
    const long = await cli(scratch, ['trace', name, file, ...flags, '--json']);
    assert.equal(long.code, 0, long.stderr);
    assert.match(long.stderr, TOLD);
    assert.equal((JSON.parse(long.stdout) as { truncated: boolean }).truncated, true);
    const whole = await cli(scratch, ['trace', name, WHOLE, ...flags, '--json']);
    assert.equal(whole.stderr, '');
    assert.equal((JSON.parse(whole.stdout) as { truncated: boolean }).truncated, false);
  }
  const summary = await cliJson<{ truncated: boolean }>(scratch, ['trace', 'show', file]);
  assert.equal(summary.truncated, true);
  const { stdout } = await cli(scratch, ['trace', 'show', file]);
  assert.match(stdout, /truncated: what is due later is left out/);
});
