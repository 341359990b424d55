import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GRANULE_BYTES } from '../../src/base/limits.ts';
import { ReplayWindow } from '../../src/trace/replay-window.ts';
import { RUN_BYTES_MIN } from '../../src/trace/store-renewal.ts';
import { emptyPlan, type Trace } from '../../src/trace/trace.ts';
import { bootLikeRecords, traceOf } from './synthetic.ts';

// Goal: a replay is measured from its first read after the mount's, for as long as the recorded run went
// on from there, and what reads wait is not counted. Method: looks at times that the test chooses.

const SECOND_US = 1_000_000;
const layer = { digest: `sha256:${'a'.repeat(64)}`, sizeBytes: 2 ** 30, diffId: null };

/** A run that mounted at 1 s, began to work at 3 s and ended at 10 s; it waited for `waitUs` of that. */
function recorded(waitUs = 0, durationUs = 10 * SECOND_US): Trace {
  const trace = traceOf(bootLikeRecords(1, 1), [layer]);
  const { records, recording } = trace;
  return {
    ...trace,
    records: { ...records, waitUs: Float64Array.of(waitUs) },
    recording: { ...recording, durationUs },
    plan: {
      count: 3,
      blob: Uint16Array.of(0, 0, 0),
      offset: Float64Array.of(0, GRANULE_BYTES, RUN_BYTES_MIN * 8),
      // Metadata, which is much; what the mount reads; and the workload.
      length: Float64Array.of(RUN_BYTES_MIN * 4, GRANULE_BYTES, RUN_BYTES_MIN),
      dueUs: Float64Array.of(0, SECOND_US, 3 * SECOND_US),
    },
  };
}

const look = (seconds: number, touchedBytes = RUN_BYTES_MIN, waitedSeconds = 0) => ({
  timeUs: seconds * SECOND_US,
  touchedBytes,
  waitedUs: waitedSeconds * SECOND_US,
});

test('it begins with the workload, however late that is', () => {
  const window = new ReplayWindow(recorded());
  assert.equal(window.lengthUs, 7 * SECOND_US);
  assert.equal(window.elapsedUs(look(0, 0)), null);
  assert.equal(window.elapsedUs(look(1000, RUN_BYTES_MIN - 1)), null);
  assert.equal(window.elapsedUs(look(2000)), 0);
  assert.equal(window.elapsedUs(look(2006.5)), 6.5 * SECOND_US);
});

test('what reads wait does not count', () => {
  const window = new ReplayWindow(recorded());
  assert.equal(window.elapsedUs(look(5, RUN_BYTES_MIN, 4)), 0);
  assert.equal(window.elapsedUs(look(20, RUN_BYTES_MIN, 13)), 6 * SECOND_US);
});

test('nor does what the recorded run waited, and it lasts a second at least', () => {
  assert.equal(new ReplayWindow(recorded(5 * SECOND_US)).lengthUs, 2 * SECOND_US);
  assert.equal(new ReplayWindow(recorded(0, SECOND_US / 1000)).lengthUs, SECOND_US);
});

test('a run that never read more than a mount does counts from its beginning', () => {
  const window = new ReplayWindow({ ...recorded(), plan: emptyPlan });
  assert.equal(window.lengthUs, 10 * SECOND_US);
});
