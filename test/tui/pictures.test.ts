import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeTraceWithinLimit } from '../../src/trace/encode.ts';
import { describeWorkload, type Trace } from '../../src/trace/trace.ts';
import { openedTrace } from '../../tui/model/opened-trace.ts';
import { traceCsv } from '../../tui/pictures/csv.ts';
import { svgToPng } from '../../tui/pictures/png.ts';
import { traceSvg } from '../../tui/pictures/svg.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';
import { pixelsOf } from './png-pixels.ts';
import { bootTrace } from './support.ts';

// Goal: pictures show each record where and in the colour it should be, whatever a trace says of itself;
// a table holds every record.
// Method: traces with known places, whose pixels are looked at; a table read back; hostile texts.

/** Two layers, read in two quarters of the time: the first half of the disk, then the second. */
const records = recordsOf([
  { timeUs: 0, lba: 1000, sectors: 100, layer: 0 },
  { timeUs: 500_000, lba: 9_000_000, sectors: 100, layer: 1 },
  { timeUs: 999_999, lba: 9_000_000 + 100, sectors: 8, layer: 1 },
]);

function svgOf(trace: Trace, order: 'lba' | 'layers' = 'lba'): string {
  return traceSvg(openedTrace('a.trace', trace, 1000), order);
}

/** Pixels of a colour in a part of the plot, in parts of its width and height. */
function countColour(png: Uint8Array, hex: string, [x0, x1]: number[], [y0, y1]: number[]): number {
  const pixels = pixelsOf(png);
  const wanted = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16));
  let found = 0;
  for (let y = Math.round(156 + y0 * 972); y < 156 + y1 * 972; y += 1) {
    for (let x = Math.round(192 + x0 * 2160); x < 192 + x1 * 2160; x += 1) {
      const colour = pixels.at(x, y);
      if (wanted.every((value, channel) => value === colour[channel])) found += 1;
    }
  }
  return found;
}

test('a record is drawn at its time and place, in the colour of its layer', async () => {
  const [first, second] = ['#0072b2', '#e69f00'];
  const byAddress = await svgToPng(svgOf(traceOf(records, syntheticLayers(2))));
  assert.deepEqual([pixelsOf(byAddress).width, pixelsOf(byAddress).height], [2400, 1360]);
  // A column of cells of 6 x 6 pixels, as high as the part of the disk that was read at once.
  assert.ok(countColour(byAddress, first, [0, 0.1], [0, 0.49]) > 2000);
  assert.equal(countColour(byAddress, first, [0.1, 1], [0, 1]), 0);
  assert.ok(countColour(byAddress, second, [0.49, 0.51], [0.49, 1]) > 2000);
  assert.equal(countColour(byAddress, second, [0, 1], [0, 0.47]), 0);
  assert.ok(countColour(byAddress, second, [0.99, 1], [0.95, 1]) > 0);
  const byLayer = await svgToPng(svgOf(traceOf(records, syntheticLayers(2)), 'layers'));
  assert.ok(countColour(byLayer, first, [0, 0.1], [0.53, 1]) > 2000, 'the lowest layer is below');
  assert.equal(countColour(byLayer, first, [0, 1], [0, 0.5]), 0);
});

test('texts of a trace stay texts', () => {
  const trace = traceOf(records, syntheticLayers(2));
  const words = ['</text><script>alert(1)</script>', '\u001b[2J\u0000', '&amp;', '\u202egpj'];
  const svg = svgOf({ ...trace, workload: describeWorkload(words, []) });
  assert.doesNotMatch(svg, /<script|\u001b|\u0000|\u202e/);
  assert.match(svg, /&lt;\/text&gt;&lt;script&gt;/);
  assert.match(svg, /&amp;amp;/);
});

test('traces of any size have a picture, and one that is not too large', () => {
  for (const [count, layers] of [
    [0, 3],
    [1, 255],
    [20_000, 12],
  ]) {
    const trace = traceOf(bootLikeRecords(count, layers), syntheticLayers(layers));
    for (const order of ['lba', 'layers'] as const) {
      const svg = svgOf(trace, order);
      assert.doesNotMatch(svg, /NaN|Infinity|undefined/);
      assert.ok(svg.length < 400_000, `${svg.length} bytes`);
    }
  }
  assert.match(svgOf(traceOf(bootLikeRecords(5000, 12), syntheticLayers(12))), /5 other layers/);
});

test('a table gives the records back', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 200 }),
      fc.integer({ min: 1, max: 9 }),
      (count, layers) => {
        const trace = traceOf(bootLikeRecords(count, layers), syntheticLayers(layers));
        const [heading, ...lines] = traceCsv(trace).trimEnd().split('\n');
        const columns = heading.split(',');
        const column = (name: string): string[] =>
          lines.map((line) => line.split(',')[columns.indexOf(name)]);
        assert.equal(lines.length, count);
        assert.deepEqual(column('time_us').map(Number), [...trace.records.timeUs]);
        assert.deepEqual(column('wait_us').map(Number), [...trace.records.waitUs]);
        assert.deepEqual(column('lba').map(Number), [...trace.records.lba]);
        assert.deepEqual(column('sectors').map(Number), [...trace.records.sectors]);
        assert.deepEqual(column('weight').map(Number), [...trace.records.weight]);
        const digests = [...trace.records.layer].map((layer) => trace.image.layers[layer].digest);
        assert.deepEqual(column('layer'), digests);
      },
    ),
  );
});

test('a picture and a table tell what records meet with in a simulated start', async (t) => {
  const scratch = scratchOf(t);
  const trace = bootTrace(500);
  const file = scratch.path('a.trace');
  writeFileSync(file, encodeTraceWithinLimit(trace));
  const link = ['--bandwidth', '25mbit', '--rtt', '50ms'];
  const write = async (format: string, ...flags: string[]): Promise<Buffer> => {
    const output = scratch.path(`a.${format}`);
    await cliOutput(scratch, ['trace', 'export', file, `--${format}`, '-o', output, ...flags]);
    return readFileSync(output);
  };
  const told = await cliJson<{ records: Record<string, number>; stalledMs: number }>(scratch, [
    ...['trace', 'simulate', file, ...link, '--json'],
  ]);
  const table = (await write('csv', ...link)).toString().trimEnd().split('\n');
  assert.match(table[0], /,weight,outcome,simulated_wait_us$/);
  const met = table.slice(1).map((line) => line.split(',')[6]);
  for (const [outcome, records] of Object.entries(told.records)) {
    assert.equal(met.filter((one) => one === outcome).length, records, outcome);
  }
  assert.ok(told.records.late > 0 && told.records.prefetched > 0);
  const svg = (await write('svg', ...link)).toString();
  assert.match(svg, /a replay \(first-access\) on 25 Mbit\/s, 50 ms takes [\d.]+ m?s and waits/);
  for (const kind of ['late', 'prefetched']) assert.ok(svg.includes(`>${kind}</text>`), kind);
  const png = await write('png', ...link);
  assert.ok(countColour(png, '#e6a800', [0, 1], [0, 1]) > 0, 'the colour of what is late');
  const half = await cli(scratch, ['trace', 'export', file, '--svg', '-o', 'x', '--rtt', '1ms']);
  assert.equal(half.code, 2);
  assert.match(half.stderr, /both --bandwidth and --rtt/);
});

test('trace export writes each format, one at a time', async (t) => {
  const scratch = scratchOf(t);
  const file = scratch.path('a.trace');
  writeFileSync(file, encodeTraceWithinLimit(traceOf(records, syntheticLayers(2))));
  const begins = { svg: '<svg ', png: '\u0089PNG', csv: 'time_us,' };
  for (const [format, beginning] of Object.entries(begins)) {
    const output = scratch.path(`a.${format}`);
    const args = ['trace', 'export', file, `--${format}`, '-o', output];
    const facts = await cliJson<{ records: number; bytes: number }>(scratch, args);
    const written = readFileSync(output);
    assert.deepEqual(facts, { output, records: 3, bytes: written.length });
    assert.equal(written.toString('latin1', 0, beginning.length), beginning);
  }
  const both = await cli(scratch, ['trace', 'export', file, '--svg', '--csv', '-o', 'x']);
  assert.equal(both.code, 2);
  const neither = await cli(scratch, ['trace', 'export', file, '-o', 'x']);
  assert.equal(neither.code, 2);
  assert.match(neither.stderr, /needs --image/);
});
