import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import type { Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/log.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { Recording, type RecordingOptions } from '../../src/trace/recording.ts';
import { describeWorkload, emptyPlan, sectorsIn } from '../../src/trace/trace.ts';
import { longestPlan, syntheticLayers } from './synthetic.ts';

// Goal: a recording ends for the reason that applies and leaves a valid file whatever happens.
// Method: a clock that the test turns; for the crash, a child process that is killed.

class HandClock implements Clock {
  ms = 1000;

  nowMs(): number {
    return this.ms;
  }

  wallMs(): number {
    return 1_760_000_000_000 + this.ms;
  }

  async sleep(): Promise<void> {
    throw new Error('nothing sleeps here');
  }
}

function record(extra: Partial<RecordingOptions> = {}): {
  clock: HandClock;
  recording: Recording;
  saved: Uint8Array[];
} {
  const clock = new HandClock();
  const saved: Uint8Array[] = [];
  const recording = new Recording({
    image: { manifestDigest: null, virtualSizeBytes: 2 ** 30, layers: syntheticLayers(1) },
    workload: describeWorkload(['/bin/true'], []),
    deviceSizeBytes: 2 ** 30,
    locate: (lba, sectors) => [{ lba, sectors, layer: 0 }],
    plan: () => emptyPlan,
    save: async (bytes) => {
      saved.push(bytes);
    },
    clock,
    log: silentLogger,
    startUs: 500,
    ...extra,
  });
  return { clock, recording, saved };
}

function savedSectors(saved: readonly Uint8Array[]): number {
  const last = saved.at(-1);
  return last === undefined ? 0 : sectorsIn(decodeTrace(last));
}

test('times count from the start of the recording', async () => {
  const { clock, recording, saved } = record();
  recording.access(400, 0, 4096);
  recording.access(1500, 1_000_000 * 512, 4096);
  clock.ms += 50;
  await recording.stop('detach');
  recording.access(1600, 8192, 4096);
  const trace = decodeTrace(saved[0]);
  assert.deepEqual([...trace.records.timeUs], [0, 1000]);
  assert.equal(trace.recording.durationUs, 50_000);
  assert.equal(trace.recording.endReason, 'detach');
  assert.equal(saved.length, 1);
});

test('records hold what was waited since the recording began, and never more than passed', async () => {
  // 300 us were waited before it began at 500; between 1,000 and 3,000 all time is waited.
  const waitedUs = (timeUs: number): number =>
    300 + Math.min(2000, Math.max(0, timeUs - 1000)) * 1.5;
  const { recording, saved } = record({ waitedUs });
  for (const [i, timeUs] of [600, 1200, 2200.4, 2100, 9000].entries()) {
    recording.access(timeUs, i * 400_000 * 512, 4096);
  }
  await recording.stop('detach');
  const { timeUs, waitUs } = decodeTrace(saved[0]).records;
  assert.deepEqual([...timeUs], [100, 700, 1700, 1700, 8500]);
  assert.deepEqual([...waitUs], [0, 300, 1300, 1300, 3000]);
});

test('ends at its time limit', async () => {
  const { clock, recording } = record({ timeLimitMs: 5000 });
  clock.ms += 4999;
  recording.tick();
  assert.equal(recording.ended, false);
  clock.ms += 1;
  recording.tick();
  assert.equal((await recording.finished).recording.endReason, 'time-limit');
});

test('ends when nothing is touched for the first time any more', async () => {
  const { clock, recording } = record({ untilIdleMs: 1000 });
  for (let i = 0; i < 20; i += 1) {
    clock.ms += 500;
    if (i < 3) recording.access(clock.ms * 1000, i * 4096, 4096);
    else recording.access(clock.ms * 1000, 0, 4096);
    recording.tick();
    assert.equal(recording.ended, i >= 4, `round ${i}`);
  }
  assert.equal((await recording.finished).recording.endReason, 'idle');
});

test('a recording that is left alone until something is due ends and saves as one that is not', async () => {
  const steps = fc.array(
    fc.record({
      ticks: fc.integer({ min: 1, max: 300 }),
      block: fc.option(fc.nat(40), { nil: null }),
    }),
    { maxLength: 20 },
  );
  const limits = fc.record(
    {
      timeLimitMs: fc.integer({ min: 100, max: 40_000 }),
      untilIdleMs: fc.integer({ min: 100, max: 9000 }),
    },
    { requiredKeys: [] },
  );
  const tickMs = 20;
  const property = fc.asyncProperty(steps, limits, async (all, options) => {
    const [watched, left] = [record(options), record(options)];
    let dueMs = -Infinity;
    let newestMs: number | null = null;
    for (const { ticks, block } of all) {
      for (const { clock, recording } of [watched, left]) {
        if (block !== null) recording.access(clock.ms * 1000, block * 4096 * 512, 4096);
      }
      if (block !== null) {
        dueMs = -Infinity;
        newestMs ??= left.clock.ms;
      }
      for (let i = 0; i < ticks; i += 1) {
        for (const { clock } of [watched, left]) clock.ms += tickMs;
        watched.recording.tick();
        const saves = left.saved.length;
        if (left.clock.ms >= dueMs) {
          left.recording.tick();
          dueMs = left.recording.dueMs;
          await nextTurn();
        }
        if (left.saved.length > saves) newestMs = null;
        assert.equal(left.recording.ended, watched.recording.ended);
        if (left.recording.ended) return;
        const { recordedSectors } = left.recording.recorder.counts;
        if (newestMs === null || recordedSectors === savedSectors(left.saved)) newestMs = null;
        else assert.ok(left.clock.ms - newestMs <= 2000 + tickMs, 'saved within 2 s');
      }
    }
  });
  await fc.assert(property, { numRuns: 40 });
});

test('the first reason to end counts, and saving failures are told', async () => {
  const { recording } = record({
    save: async () => {
      throw new Error('disk full');
    },
  });
  await assert.rejects(recording.stop('request'), /disk full/);
  await assert.rejects(recording.stop('detach'), /disk full/);
});

test('a recording that ends itself and cannot be saved says so through finished alone', async () => {
  const { clock, recording } = record({
    timeLimitMs: 10,
    save: async () => {
      throw new Error('disk full');
    },
  });
  clock.ms += 10;
  recording.tick();
  // An unhandled rejection would fail this test.
  await new Promise((resolve) => setImmediate(resolve));
  await assert.rejects(recording.finished, /disk full/);
});

test('a recording says once that its file lacks ranges, or the whole plan', async () => {
  const image = {
    manifestDigest: null,
    virtualSizeBytes: 2 ** 30,
    layers: syntheticLayers(1, 2 ** 49),
  };
  const longest = longestPlan();
  // Numbers of many digits: a file has no room for a million of them.
  const scattered = {
    ...longest,
    offset: longest.offset.map((_, i) => (i % 2) * 2 ** 48 + i * 2 ** 27),
    length: longest.length.map(() => 2 ** 26),
  };
  for (const [plan, told] of [
    [longest, /plan has no more than 1000000 ranges/],
    [scattered, /too large: its plan had to be left out/],
  ] as const) {
    const lines: string[] = [];
    const log = pino({ base: null }, { write: (text) => void lines.push(text) });
    const { clock, recording, saved } = record({ image, plan: () => plan, log });
    assert.equal(recording.truncated, false);
    for (let i = 0; i < 2; i += 1) {
      recording.access(clock.ms * 1000, i * 2 ** 20, 4096);
      clock.ms += 2000;
      recording.tick();
      await nextTurn();
    }
    await recording.stop('detach');
    assert.equal(saved.length, 3);
    assert.equal(recording.truncated, true);
    assert.equal(lines.length, 1);
    assert.match(lines[0], told);
  }
});

test('checkpoints come when something is new, one at a time, and before the last save', async () => {
  const order: string[] = [];
  let release = (): void => undefined;
  const { clock, recording } = record({
    save: async (bytes) => {
      const { endReason } = decodeTrace(bytes).recording;
      order.push(`begin ${endReason}`);
      if (endReason === 'checkpoint') await new Promise<void>((resolve) => (release = resolve));
      order.push(`end ${endReason}`);
    },
  });
  clock.ms += 2000;
  recording.tick();
  assert.deepEqual(order, [], 'nothing new, no checkpoint');
  recording.access(1000, 0, 512);
  clock.ms += 2000;
  recording.tick();
  clock.ms += 2000;
  recording.access(2000, 1_024_000, 512);
  recording.tick();
  assert.deepEqual(order, ['begin checkpoint']);
  const stopped = recording.stop('request');
  release();
  await stopped;
  assert.deepEqual(order, ['begin checkpoint', 'end checkpoint', 'begin request', 'end request']);
});

test('kill -9 leaves the last checkpoint', { timeout: 20_000 }, async () => {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-test-'));
  const path = join(folder, 'boot.trace');
  const child = spawn(
    process.execPath,
    [new URL('./recording-child.ts', import.meta.url).pathname, path],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  try {
    const exited = new Promise((resolve) => child.once('exit', resolve));
    while (!existsSync(path)) await sleep(5);
    for (let i = 0; i < 20; i += 1) {
      const trace = decodeTrace(readFileSync(path), path);
      assert.equal(trace.recording.endReason, 'checkpoint');
      await sleep(3);
    }
    child.kill('SIGKILL');
    await exited;
    const trace = decodeTrace(readFileSync(path), path);
    assert.ok(trace.records.count > 0);
    for (let i = 0; i < trace.records.count; i += 1) {
      assert.equal(trace.records.lba[i], i * 16, 'records are the first ones, without a gap');
    }
    const others = readdirSync(folder).filter((name) => name !== 'boot.trace');
    assert.ok(others.length <= 1, 'at most the file that was being written');
  } finally {
    child.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  }
});
