import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Command, CommanderError } from 'commander';
import { bandwidth, milliseconds, rangeSize } from '../../src/cli/arguments.ts';
import { registerSimulate } from '../../src/cli/trace-simulate.ts';
import type { GridRow } from '../../src/prefetch/simulate/grid.ts';
import type { Outcome } from '../../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../../src/prefetch/simulate/types.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: `trace simulate` understands units, refuses what has none, and prints one link or a table.
// Method: the units by themselves; the command's own definition for wrong usage; the whole tool on a
// recorded trace for the rest.

const TRACE = fileURLToPath(new URL('../../traces/node-service.trace', import.meta.url));

test('bandwidths, times and sizes have units', () => {
  assert.equal(bandwidth('100mbit'), 12.5e6);
  assert.equal(bandwidth('1 Gbit'), 125e6);
  assert.equal(bandwidth('12.5MB/s'), 12.5e6);
  assert.equal(milliseconds('20ms'), 20);
  assert.equal(milliseconds('0.5s'), 500);
  assert.equal(milliseconds('0ms'), 0);
  assert.equal(rangeSize('256KiB'), 262_144);
  for (const text of ['', '100', 'mbit', '-1mbit', '0mbit', '1e3mbit', '1xbit', '1 constructor']) {
    assert.throws(() => bandwidth(text), /such as 100mbit or 12\.5MB\/s/, text);
  }
  assert.throws(() => milliseconds('20'), /such as 20ms/);
  assert.throws(() => rangeSize('3KiB'), /a multiple of 4KiB/);
  assert.throws(() => rangeSize('0KiB'), /a multiple of 4KiB/);
  assert.equal(rangeSize('64MiB'), 2 ** 26);
  for (const text of ['1GiB', '65MiB']) assert.throws(() => rangeSize(text), /up to 64MiB/, text);
});

/** What commander says about a command line that must be refused. */
async function refusal(...words: string[]): Promise<string> {
  const trace = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
  registerSimulate(trace);
  const error = await trace.parseAsync(['simulate', TRACE, ...words], { from: 'user' }).then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CommanderError, `${words.join(' ')}: ${String(error)}`);
  return error.message;
}

test('a link is needed, and not too many', async () => {
  assert.match(await refusal(), /--bandwidth and --rtt, or --grid/);
  assert.match(await refusal('--rtt', '20ms'), /--bandwidth and --rtt, or --grid/);
  assert.match(await refusal('--policy', 'best'), /Allowed choices are first-access, lba/);
  assert.match(await refusal('--grid', '--concurrency', '0'), /whole number from 1 to 1024/);
  const many = Array.from({ length: 101 }, (_, i) => ['--rtt', `${i}ms`]).flat();
  assert.match(await refusal('--bandwidth', '1mbit', ...many), /101 links are more than 100/);
});

test('processor time is counted, and can be left out', async (t) => {
  const scratch = scratchOf(t);
  const startMs = async (...more: string[]): Promise<number> => {
    const link = ['--bandwidth', '1gbit', '--rtt', '20ms', '--json'];
    const words = ['trace', 'simulate', TRACE, ...link, ...more];
    return (await cliJson<SimulationResult>(scratch, words)).predictedMs;
  };
  const withoutMs = await startMs('--host-cost', '0');
  assert.equal(await startMs('--host-cost', '50.5,0,0'), withoutMs + 50.5);
  assert.ok((await startMs()) > withoutMs + 100);
  const help = await cliOutput(scratch, ['trace', 'simulate', '--help']);
  assert.match(help.replaceAll(/\s+/g, ' '), /0 for none \(default: 100,1,10\)/);
  assert.match(await refusal('--host-cost', '1,2'), /such as 100,1,10/);
  assert.match(await refusal('--host-cost', '-1,2,3'), /such as 100,1,10/);
});

test('one link is a report, several are a table', async (t) => {
  const scratch = scratchOf(t);
  const link = ['trace', 'simulate', TRACE, '--bandwidth', '100mbit', '--rtt', '20ms'];
  const result = await cliJson<SimulationResult & { records: Record<Outcome, number> }>(
    scratch,
    link,
  );
  assert.deepEqual(result.link, { bytesPerSecond: 12.5e6, roundTripMs: 20 });
  assert.ok(result.boundMs <= result.predictedMs && result.predictedMs < result.lazyMs);
  const { prefetched, late, cached, demand } = result.records;
  const { count } = decodeTrace(readFileSync(TRACE)).records;
  assert.equal(prefetched + late + cached + demand, count);
  const text = await cliOutput(scratch, [...link, '--policy', 'lba']);
  assert.match(text, /^records +0 unused, \d+ cached, \d+ prefetched, \d+ late, \d+ demand$/m);
  assert.match(text, /^link +100 Mbit\/s, 20 ms\npolicy +lba\nstart +\d+ ms \(lazy/);
  const rows = await cliJson<GridRow[]>(scratch, [...link, '--rtt', '50ms']);
  assert.deepEqual(
    rows.map((row) => row.link.roundTripMs),
    [20, 50],
  );
  for (const row of rows) {
    assert.deepEqual(row.knobs.map(({ knob }) => knob).toSorted(), [
      'concurrency',
      'policy',
      'range size',
    ]);
    assert.ok(row.knobs.every(({ bestMs, worstMs }) => bestMs <= worstMs));
  }
});

test('what is no trace is refused', async (t) => {
  const args = ['trace', 'simulate', fileURLToPath(import.meta.url), '--grid'];
  const { code, stderr } = await cli(scratchOf(t), args);
  assert.equal(code, 1);
  assert.match(stderr, /ERR_TRACE_/);
});
