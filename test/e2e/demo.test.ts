import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { test } from 'node:test';
import type { QualitySnapshot } from '../../src/prefetch/quality.ts';
import { leftovers } from '../support/attached.ts';
import { cliJson } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: the demonstration shows on any machine what the project is for, and cleans up after itself.
// Method: it is run as users run it, over a faster link than theirs, and its figures are compared with
// each other: a replay takes less time than lazy, and fetches what lazy fetched without being asked.

interface RunFigures {
  firstOutputMs: number;
  fetchedBytes: number;
  requests: number;
  quality: QualitySnapshot;
}

interface DemoFigures {
  image: { blobBytes: number; virtualSizeBytes: number };
  guest: { kind: string; output: string };
  lazy: RunFigures;
  replay: RunFigures;
  warm: RunFigures;
  boundMs: number;
  gapClosure: number;
}

const LINK = ['--latency', '10', '--rate', '400'];

async function runDemo(scratch: Scratch, ...args: string[]): Promise<DemoFigures> {
  const env = { TMPDIR: scratch.folder };
  const figures = await cliJson<DemoFigures>(scratch, ['demo', ...LINK, ...args], { env });
  assert.deepEqual(leftovers(scratch.folder), []);
  assert.deepEqual(readdirSync(scratch.folder), []);
  return figures;
}

function assertSane({ image, lazy, replay, warm, boundMs, gapClosure }: DemoFigures): void {
  assert.ok(image.blobBytes > 2 ** 25 && image.virtualSizeBytes > image.blobBytes);
  for (const run of [lazy, replay, warm]) assert.equal(run.quality.missErrors, 0);
  assert.equal(lazy.quality.coverage, 0);
  const { coverage, accuracy } = replay.quality;
  assert.ok(coverage !== null && coverage > 0.9 && coverage <= 1, `coverage ${coverage}`);
  assert.ok(accuracy !== null && accuracy > 0.8 && accuracy <= 1, `accuracy ${accuracy}`);
  // The kernel does not read exactly the same blocks every time.
  assert.ok(warm.requests < lazy.requests / 20, `a warm start sends ${warm.requests} requests`);
  assert.ok(warm.fetchedBytes < lazy.fetchedBytes / 20);
  // Warm and replayed starts are close, and a busy machine may swap them; lazy waits for the link.
  for (const run of [warm, replay]) assert.ok(run.firstOutputMs < lazy.firstOutputMs);
  assert.ok(boundMs > warm.firstOutputMs && boundMs < lazy.firstOutputMs);
  assert.ok(gapClosure > 0);
}

test('a program starts from a mounted image', { skip: needs('root') }, async (t) => {
  const figures = await runDemo(scratchOf(t));
  assert.equal(figures.guest.kind, 'mount');
  assert.match(figures.guest.output, /^ready .*"modules":10/);
  assertSane(figures);
});

test('recorded reads are played over NBD', async (t) => {
  const figures = await runDemo(scratchOf(t), '--nbd');
  assert.equal(figures.guest.kind, 'nbd');
  assert.match(figures.guest.output, /^\d+ reads played$/);
  assertSane(figures);
});
