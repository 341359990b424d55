import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32c } from '../../src/base/crc32c.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { checkAgainst, checkImage, checkSoundness } from '../../src/trace/check.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { diffTraces } from '../../src/trace/diff.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { encodeMerged, TraceMerger } from '../../src/trace/merge.ts';
import type { Trace } from '../../src/trace/trace.ts';
import { jitteredRuns, stripedImage, stripedLayers } from './lab-support.ts';
import { random, recordsOf, syntheticLayers, traceOf } from './synthetic.ts';

// Goal: no file makes merge, diff or check do anything but give a result or a ReplaybdError.
// Method: files with a few bytes changed and a good checksum, of which those that can be read are combined
// with a good one; traces that decode and name the same sectors over and over.

const [good] = jitteredRuns(1);
const opened = { ...stripedImage, layers: stripedLayers, name: 'image' };

/** Everything that the commands do with two traces; how many of it were done. */
function combine(first: Trace, second: Trace): number {
  const merge = (image: boolean, budgetBytes: number): void => {
    const merger = new TraceMerger();
    merger.add(first, 'first');
    merger.add(second, 'second');
    const options = { budgetBytes, ...(image ? { image: opened } : {}) };
    encodeMerged(merger.merge(options).trace, 'merged');
  };
  const works = [
    () => merge(false, Infinity),
    () => merge(true, 50_000),
    () => diffTraces(first, second, { listMax: 10 }),
    () => checkSoundness(second),
    () => checkAgainst(first, [{ ...second, name: 'run' }], { coverageMin: 1, wasteBytesMax: 0 }),
    () => checkImage(second, first.image, 1),
  ];
  let done = 0;
  for (const work of works) {
    try {
      work();
      done += 1;
    } catch (error) {
      assert.ok(error instanceof ReplaybdError, String(error));
    }
  }
  return done;
}

test('forged files are combined, or refused with a ReplaybdError', () => {
  const sample = encodeTrace(good);
  const next = random(11);
  const done = [0, 0, 0, 0, 0, 0, 0];
  for (let round = 0; round < 500; round += 1) {
    const forged = Uint8Array.from(sample);
    const changes = 1 + Math.floor(next() * 4);
    for (let i = 0; i < changes; i += 1) {
      forged[33 + Math.floor(next() * (forged.length - 37))] = Math.floor(next() * 256);
    }
    const covered = forged.subarray(0, forged.length - 4);
    new DataView(forged.buffer).setUint32(covered.length, crc32c(covered));
    let trace: Trace;
    try {
      trace = decodeTrace(forged);
    } catch (error) {
      assert.ok(error instanceof ReplaybdError, String(error));
      continue;
    }
    done[combine(good, trace)] += 1;
    done[combine(trace, good)] += 1;
  }
  assert.ok(done[6] > 20, `some are combined: ${done.join(', ')}`);
});

test('a trace that names the same places over and over is read once', () => {
  const rows = Array.from({ length: 20_000 }, (_, i) => {
    return { timeUs: i, lba: (i * 7919) % 100_000, sectors: 8192, layer: 0 };
  });
  const nested = traceOf(recordsOf(rows), syntheticLayers(1));
  const sectors = diffTraces(nested, nested, { listMax: 1 }).kept.bytes / 512;
  assert.ok(sectors <= 100_000 + 8192);
  // More places than a bitmap has pages for, each of them twice.
  const far = Array.from({ length: 40_000 }, (_, i) => {
    return { timeUs: i, lba: 32_768 * (i >> 1), sectors: 1, layer: 0 };
  });
  const scattered = traceOf(recordsOf(far), syntheticLayers(1));
  assert.throws(() => checkSoundness(scattered), { code: 'ERR_TRACE_LIMIT' });
});
