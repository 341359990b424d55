import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import {
  countOutcomes,
  OutcomeLog,
  OUTCOMES,
  recordOutcomes,
} from '../../src/prefetch/simulate/outcomes.ts';
import { prepareSimulation, simulate } from '../../src/prefetch/simulate/simulate.ts';
import { SIMULATION_POLICIES, type SimulationOptions } from '../../src/prefetch/simulate/types.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { emptyPlan, type Trace } from '../../src/trace/trace.ts';
import { recordsOf, syntheticLayers, traceOf } from '../trace/synthetic.ts';

// Goal: what records meet with in a simulated start is what the start counts, and asking for it changes
// nothing.
// Method: small traces whose outcomes arithmetic tells; recorded traces on several links, whose waits and
// bytes are compared with the start's own; records and plans that do not belong together.

interface Row {
  readonly timeMs: number;
  readonly waitMs?: number;
  readonly layer: number;
  /** Planned bytes; none for a record that needs nothing of its own. */
  readonly bytes?: number;
}

/** Records, each with its range of its layer in the plan, one behind the other. */
function traceWith(rows: readonly Row[]): Trace {
  const records = recordsOf(
    rows.map(({ timeMs, waitMs = 0, layer }, index) => ({
      ...{ timeUs: timeMs * 1000, waitUs: waitMs * 1000, layer },
      ...{ lba: index * 8, sectors: 8 },
    })),
  );
  const planned = rows.flatMap((row, index) =>
    row.bytes === undefined ? [] : [{ ...row, bytes: row.bytes, index }],
  );
  const plan = {
    count: planned.length,
    blob: Uint16Array.from(planned, ({ layer }) => layer),
    offset: Float64Array.from(planned, ({ index }) => index * 2 ** 22),
    length: Float64Array.from(planned, ({ bytes }) => bytes),
    dueUs: Float64Array.from(planned, ({ timeMs, waitMs = 0 }) => (timeMs - waitMs) * 1000),
  };
  return { ...traceOf(records, syntheticLayers(3)), plan };
}

function outcomesOf(trace: Trace, options: SimulationOptions) {
  const log = new OutcomeLog();
  const result = simulate(prepareSimulation(trace), options, log);
  const { codes, waitMs, together } = recordOutcomes(trace, log);
  return { result, names: [...codes].map((code) => OUTCOMES[code]), waitMs, together };
}

const LINK = { bytesPerSecond: 1e6, roundTripMs: 10 };

test('records are prefetched, late, on demand or cached as arithmetic says', () => {
  const trace = traceWith([
    // A second's worth of bytes, needed at once; then what had come long before it is needed.
    { timeMs: 1, layer: 0, bytes: 1_000_000 },
    { timeMs: 2, layer: 0 },
    { timeMs: 500, layer: 1, bytes: 4096 },
    { timeMs: 900, layer: 1 },
    { timeMs: 5000, layer: 2, bytes: 4096 },
  ]);
  const { names, waitMs, result } = outcomesOf(trace, { link: LINK });
  assert.deepEqual(names, ['late', 'late', 'prefetched', 'cached', 'prefetched']);
  assert.equal(waitMs[0], result.stalledMs);
  // All three ranges leave at once and take turns: a round trip, and what they hold at 1 MB/s.
  assert.ok(Math.abs(waitMs[0] - (10 + 1008.192 - 1)) < 1e-6, `${waitMs[0]} ms`);
  assert.deepEqual([...waitMs].slice(1), [0, 0, 0, 0]);
  const lazy = outcomesOf(trace, { link: LINK, policy: 'none', readAhead: false });
  assert.deepEqual(lazy.names, ['demand', 'demand', 'demand', 'cached', 'demand']);
  assert.equal(lazy.waitMs.filter((ms) => ms > 0).length, 3);
  const short = outcomesOf(trace, { link: LINK, warmMs: 600 });
  assert.deepEqual(short.names, ['late', 'late', 'prefetched', 'cached', 'unused']);
});

test('records of one time wait together, on the warm axis', () => {
  const trace = traceWith([
    { timeMs: 5, layer: 0, bytes: 100_000 },
    // While the recorded run waited, time went on and its own did not.
    { timeMs: 45, waitMs: 40, layer: 1, bytes: 4096 },
    { timeMs: 50, waitMs: 45, layer: 2 },
  ]);
  const options = { link: LINK, policy: 'none', readAhead: false } as const;
  const { names, waitMs, together, result } = outcomesOf(trace, options);
  assert.deepEqual(names, ['demand', 'demand', 'cached']);
  assert.deepEqual([...waitMs], [result.stalledMs, result.stalledMs, 0]);
  assert.deepEqual([...together], [2, 2, 2]);
});

test('asking for outcomes changes no result, and they add up to it', () => {
  for (const name of ['nginx', 'redis', 'node-service']) {
    const path = fileURLToPath(new URL(`../../traces/${name}.trace`, import.meta.url));
    const trace = decodeTrace(readFileSync(path), path);
    const prepared = prepareSimulation(trace);
    for (const policy of SIMULATION_POLICIES) {
      for (const bytesPerSecond of [25e6 / 8, 1000e6 / 8]) {
        const options = { link: { bytesPerSecond, roundTripMs: 50 }, policy };
        const log = new OutcomeLog();
        const result = simulate(prepared, options, log);
        assert.deepEqual(result, simulate(prepared, options));
        const { codes, waitMs, together } = recordOutcomes(trace, log);
        const waited = waitMs.reduce((sum, ms, record) => sum + ms / together[record], 0);
        assert.ok(Math.abs(waited - result.stalledMs) < 1e-6 * (1 + waited), `${name} ${policy}`);
        const counts = countOutcomes({ codes });
        const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
        assert.equal(all, trace.records.count);
        assert.equal(counts.unused, 0);
        if (result.coverage === 1) assert.equal(counts.demand, 0);
        if (result.timeliness === 1) assert.equal(counts.late, 0);
        if (result.coverage === 0) assert.equal(counts.prefetched + counts.late, 0);
      }
    }
  }
});

test('records that the plan knows nothing of have an outcome too', () => {
  const row = fc.record({ timeUs: fc.nat(20_000), layer: fc.nat(2) });
  const range = fc.record({ blob: fc.nat(2), granules: fc.integer({ min: 1, max: 9 }), due: row });
  const sorted = <T extends { timeUs: number }>(rows: T[]): T[] =>
    rows.toSorted((a, b) => a.timeUs - b.timeUs);
  fc.assert(
    fc.property(fc.array(row), fc.array(range, { minLength: 1, maxLength: 20 }), (rows, ranges) => {
      const due = sorted(ranges.map((one) => ({ ...one, timeUs: one.due.timeUs })));
      const trace = {
        ...traceOf(
          recordsOf(sorted(rows).map((one, i) => ({ ...one, lba: i * 8, sectors: 8 }))),
          syntheticLayers(3),
        ),
        plan: {
          ...emptyPlan,
          count: due.length,
          blob: Uint16Array.from(due, ({ blob }) => blob),
          offset: Float64Array.from(due, (_, i) => i * 2 ** 20),
          length: Float64Array.from(due, ({ granules }) => granules * 4096),
          dueUs: Float64Array.from(due, ({ timeUs }) => timeUs),
        },
      };
      const { names, waitMs } = outcomesOf(trace, { link: LINK });
      assert.equal(names.length, rows.length);
      for (const [record, name] of names.entries()) {
        assert.ok(name !== undefined && waitMs[record] >= 0);
        if (name !== 'late' && name !== 'demand') assert.equal(waitMs[record], 0);
      }
    }),
  );
});
