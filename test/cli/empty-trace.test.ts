import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { readTraceFile } from '../../src/trace/store.ts';
import { cli, cliOutput, serveRegistry } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: nobody is left with a trace of no use without being told. Method: the tool on traces of which
// nothing is left, and on one without records.

const TOLD = /the trace has no records/;

test('merge and rebase say when nothing is left', async (t) => {
  const scratch = scratchOf(t);
  const [file, output] = [scratch.path('a.trace'), scratch.path('out.trace')];
  const trace = traceOf(bootLikeRecords(5, 1), syntheticLayers(1, 2 ** 30));
  const plan = {
    ...{ count: 1, blob: Uint16Array.of(0), offset: Float64Array.of(0) },
    ...{ length: Float64Array.of(4096), dueUs: Float64Array.of(0) },
  };
  writeFileSync(file, encodeTrace({ ...trace, plan }));
  const merge = ['trace', 'merge', file, '-o', output];
  const light = await cli(scratch, [...merge, '--min-weight', '2']);
  assert.deepEqual([light.code, TOLD.test(light.stderr)], [0, true], light.stderr);
  assert.equal(decodeTrace(await readTraceFile(output)).records.count, 0);
  assert.equal((await cli(scratch, merge)).stderr, '');

  const rootfs = scratch.path('rootfs');
  mkdirSync(rootfs);
  writeFileSync(scratch.path('rootfs', 'a'), 'a');
  const layout = scratch.path('layout');
  const config = scratch.path('config.v1.json');
  await cliOutput(scratch, ['image', 'build', '--layout', layout, '--rootfs', rootfs]);
  await cliOutput(scratch, ['image', 'config', `oci:${layout}`, '--output', config]);
  const rebased = await cli(scratch, [
    ...['trace', 'rebase', file, config, '-o', output, '--cache', 'none'],
  ]);
  assert.deepEqual([rebased.code, TOLD.test(rebased.stderr)], [0, true], rebased.stderr);
});

test('push refuses a trace without records, before it asks anybody', async (t) => {
  const scratch = scratchOf(t);
  const url = await serveRegistry(scratch, scratch.path('registry'));
  const file = scratch.path('empty.trace');
  writeFileSync(file, encodeTrace(traceOf(recordsOf([]), syntheticLayers(1))));
  const pushed = await cli(scratch, ['trace', 'push', `${url}/team/app:v1`, file]);
  assert.equal(pushed.code, 1);
  assert.match(pushed.stderr, /ERR_TRACE_EMPTY/);
});
