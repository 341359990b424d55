import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  coalesceOptionsFor,
  defaultCoalesceOptions,
  type CoalesceOptions,
} from '../../src/prefetch/coalesce-options.ts';
import { coalesce } from '../../src/prefetch/coalesce.ts';
import type { DueRange } from '../../src/prefetch/plan-window.ts';
import { random } from '../trace/synthetic.ts';

// Goal: requests cover exactly what is due, each granule once, urgent first, within the limits the
// options set. Method: random plans, with and without repetition, against a set of granules.

const G = 4096;

const options: CoalesceOptions = {
  ...defaultCoalesceOptions,
  gapBytesMax: 3 * G,
  overFetchRatioMax: 0.1,
  requestBytesMax: 32 * G,
  firstRequests: 2,
  firstRequestBytesMax: 8 * G,
  horizonBytes: 100 * G,
  horizonUs: 5000,
  leadBytesMax: 6 * G,
};

const plans = fc
  .array(
    fc.record({
      blob: fc.nat(2),
      granule: fc.nat(300),
      granules: fc.integer({ min: 1, max: 20 }),
      gapUs: fc.nat(400),
    }),
    { maxLength: 150 },
  )
  .map((rows) => {
    let dueUs = 0;
    return rows.map(({ blob, granule, granules, gapUs }) => {
      dueUs += gapUs;
      return { blob, offset: granule * G, length: granules * G, dueUs };
    });
  });

function granulesOf({ blob, offset, length }: Omit<DueRange, 'dueUs'>): string[] {
  const names = [];
  for (let at = offset; at < offset + length; at += G) names.push(`${blob}/${at / G}`);
  return names;
}

test('requests cover what is due, each granule once, within every limit', () => {
  fc.assert(
    fc.property(plans, (plan) => {
      const due = new Map<string, number>();
      for (const range of plan) {
        for (const name of granulesOf(range)) {
          if (!due.has(name)) due.set(name, range.dueUs);
        }
      }
      const requested = new Set<string>();
      let needed = 0;
      let gaps = 0;
      for (const [index, request] of [...coalesce(plan, options)].entries()) {
        const lengthMax = index < 2 ? options.firstRequestBytesMax : options.requestBytesMax;
        assert.ok(request.length <= lengthMax);
        const names = granulesOf(request);
        for (const name of names) {
          assert.ok(!requested.has(name), `${name} is requested twice`);
          requested.add(name);
        }
        const wanted = names.filter((name) => due.has(name));
        assert.ok(wanted.length * G >= request.neededBytes);
        const dues = wanted.map((name) => due.get(name) ?? 0);
        assert.ok(Math.min(...dues) <= request.dueUs);
        assert.ok(dues.some((dueUs) => dueUs === request.dueUs));
        needed += request.neededBytes;
        gaps += request.length - request.neededBytes;
      }
      assert.ok(gaps <= options.overFetchRatioMax * needed + 1e-6, `${gaps} of ${needed}`);
      for (const name of due.keys()) assert.ok(requested.has(name), `${name} is missing`);
    }),
  );
});

test('each request is made for the earliest range that has none', () => {
  fc.assert(
    fc.property(plans, (plan) => {
      const requested = new Set<string>();
      for (const request of coalesce(plan, options)) {
        const earliest = plan.find((range) =>
          granulesOf(range).some((name) => !requested.has(name)),
        );
        assert.equal(request.dueUs, earliest?.dueUs);
        for (const name of granulesOf(request)) requested.add(name);
      }
    }),
  );
});

test('ranges due after the horizon wait for their turn', () => {
  const range = (granule: number, dueUs: number): DueRange => ({
    blob: 0,
    offset: granule * G,
    length: G,
    dueUs,
  });
  const near = [range(0, 0), range(50, 10), range(1, 5000)];
  const starts = (plan: DueRange[]): number[] =>
    [...coalesce(plan, options)].map((request) => request.offset / G);
  assert.deepEqual(starts(near), [0, 50]);
  const far = [range(0, 0), range(50, 10), range(1, 5001)];
  assert.deepEqual(starts(far), [0, 50, 1]);
});

test('a gap is fetched when it is small and the budget for gaps allows', () => {
  const long = { blob: 0, offset: 0, length: 8 * G, dueUs: 0 };
  const more = { blob: 0, offset: 100 * G, length: 8 * G, dueUs: 0 };
  const beside = { blob: 0, offset: 110 * G, length: 12 * G, dueUs: 1 };
  const lengths = (ratio: number, gapGranules: number): number[] =>
    [
      ...coalesce([long, more, { ...beside, offset: (108 + gapGranules) * G }], {
        ...options,
        firstRequests: 0,
        overFetchRatioMax: ratio,
      }),
    ].map((request) => request.length / G);
  assert.deepEqual(lengths(0.1, 2), [8, 22]);
  assert.deepEqual(lengths(0.05, 2), [8, 8, 12]);
  assert.deepEqual(lengths(1, 4), [8, 8, 12]);
});

test('the smallest gaps are closed first', () => {
  // Runs of 20 granules, after gaps of 3, 1, 2 and 3: a budget of 4 % closes the 1 and the 2.
  const offsets = [0, 23, 44, 66, 89];
  const plan = offsets.map((at, i) => ({ blob: 0, offset: at * G, length: 8 * G, dueUs: i }));
  const rest = offsets.map((at, i) => ({
    blob: 0,
    offset: (at + 8) * G,
    length: 12 * G,
    dueUs: 10 + i,
  }));
  const requests = [
    ...coalesce([...plan, ...rest], {
      ...options,
      firstRequests: 0,
      requestBytesMax: 100 * G,
      horizonBytes: 1000 * G,
      overFetchRatioMax: 0.04,
    }),
  ];
  assert.deepEqual(
    requests.map(({ offset, length }) => [offset / G, length / G]),
    [
      [0, 20],
      [23, 63],
      [89, 20],
    ],
  );
});

test('a plan that repeats itself costs no more than once', () => {
  const plan = Array.from({ length: 500 }, (_, i) => ({
    blob: 0,
    offset: 0,
    length: 1000 * G,
    dueUs: i,
  }));
  let bytes = 0;
  for (const request of coalesce(plan, defaultCoalesceOptions)) bytes += request.length;
  assert.equal(bytes, 1000 * G);
});

test('files of an image: at most 10 % over-fetch, 1 to 1.5 requests a MiB', () => {
  // Files of 16 KiB to 1 MiB lie side by side in three blobs. A boot reads runs of neighbouring
  // files, three at a time, in pieces of at most 128 KiB, and skips a granule now and then.
  const next = random(11);
  const readers = [0, 1, 2].map((blob) => ({ blob, at: 0, left: 0 }));
  const plan: DueRange[] = [];
  for (let i = 0; i < 6000; i += 1) {
    const reader = readers[Math.floor(next() * 3)];
    if (reader.left <= 0) {
      reader.at += next() < 0.2 ? Math.floor(next() * 2000) : Math.floor(next() * 3);
      reader.left = 4 + Math.floor(next() ** 2 * 252);
    }
    const granules = Math.min(reader.left, 1 + Math.floor(next() * 32));
    const { blob } = reader;
    plan.push({ blob, offset: reader.at * G, length: granules * G, dueUs: i * 300 });
    reader.at += granules;
    reader.left -= granules;
  }
  const needed = plan.reduce((sum, range) => sum + range.length, 0);
  const fast = coalesceOptionsFor({ bytesPerSecond: 100e6 });
  for (const [linkOptions, requestsPerMib] of [
    [defaultCoalesceOptions, 1.5],
    [fast, 1],
  ] as const) {
    let requests = 0;
    let bytes = 0;
    for (const request of coalesce(plan, linkOptions)) {
      requests += 1;
      bytes += request.length;
    }
    assert.ok(bytes <= needed * 1.1, `over-fetch ${bytes / needed - 1}`);
    const mib = needed / 2 ** 20;
    assert.ok(requests <= mib * requestsPerMib, `${requests} requests for ${mib} MiB`);
  }
});

test('slower links get smaller requests and smaller gaps', () => {
  assert.deepEqual(coalesceOptionsFor({ bytesPerSecond: 0 }), defaultCoalesceOptions);
  const slow = coalesceOptionsFor({ bytesPerSecond: 3_000_000 });
  assert.equal(slow.requestBytesMax, 144 * 1024);
  assert.equal(slow.gapBytesMax, 0);
  const fast = coalesceOptionsFor({ bytesPerSecond: 1e9 });
  assert.equal(fast.requestBytesMax, 2 ** 21);
  assert.equal(fast.gapBytesMax, 256 * 1024);
});
