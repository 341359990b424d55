import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { Packr } from 'msgpackr';
import { crc32c } from '../../src/base/crc32c.ts';
import { ReplaybdError } from '../../src/base/errors.ts';
import { traceLimits } from '../../src/base/limits.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace, encodeTraceWithinLimit } from '../../src/trace/encode.ts';
import { END_REASONS, workloadKey, type Trace } from '../../src/trace/trace.ts';
import {
  bootLikeRecords,
  digestOfText,
  random,
  recordsOf,
  syntheticLayers,
  traceOf,
} from './synthetic.ts';

// Goal: a trace file holds what was put in, in the same bytes every time; whatever else is in a
// file is refused with a ReplaybdError. Method: random traces for the round trip; damaged files,
// forged files with a good checksum, and every field just beyond its bound for the refusals.

const layerRow = fc.record({
  gap: fc.nat(70_000),
  waitShare: fc.constantFrom(0, 0, 0, 0.3, 1),
  sectors: fc.integer({ min: 1, max: 65_536 }),
});

const traces: fc.Arbitrary<Trace> = fc
  .record({
    layerCount: fc.integer({ min: 1, max: 255 }),
    runs: fc.integer({ min: 1, max: 65_535 }),
    unit: fc.constantFrom(1, 2, 4, 8),
    endReason: fc.constantFrom(...END_REASONS),
    isPacked: fc.boolean(),
    text: fc.string({ unit: 'binary', maxLength: 20 }),
    rows: fc.array(fc.tuple(layerRow, fc.nat(2 ** 27 - 2 ** 17), fc.nat(254), fc.nat(65_534)), {
      maxLength: 40,
    }),
    ranges: fc.array(fc.tuple(fc.nat(254), fc.integer({ min: 1, max: 40 }), fc.nat(2 ** 30)), {
      maxLength: 40,
    }),
  })
  .map(({ layerCount, runs, unit, endReason, isPacked, text, rows, ranges }) => {
    const layers = syntheticLayers(layerCount, 4096 * 2000 + 77);
    let timeUs = 0;
    let waitUs = 0;
    const records = recordsOf(
      rows.map(([row, lba, layer, weight]) => {
        timeUs += row.gap;
        waitUs += Math.floor(row.gap * row.waitShare);
        const sectors = Math.max(1, Math.floor(row.sectors / unit)) * unit;
        return {
          timeUs,
          waitUs,
          lba: lba - (lba % unit),
          sectors: Math.min(sectors, traceLimits.recordSectorsMax),
          layer: layer % layerCount,
          weight: 1 + (weight % runs),
        };
      }),
    );
    const trace = traceOf(records, layers, runs);
    const ends = new Float64Array(layerCount);
    const planned = ranges.map(([blob, granules]) => {
      const index = blob % layerCount;
      const offset = ends[index];
      ends[index] += granules * 4096;
      return { index, offset, length: granules * 4096 };
    });
    // The last range of blob 0 ends where the blob does, inside a granule.
    planned.push({ index: 0, offset: 4096 * 2000, length: 77 });
    const packedLayers = [0, ...(layerCount > 2 ? [2] : [])];
    const sizeBytes = planned
      .filter(({ index }) => packedLayers.includes(index))
      .reduce((sum, { length }) => sum + length, 0);
    const packed = { digest: digestOfText(text), sizeBytes, layers: packedLayers };
    let dueUs = 0;
    return {
      ...(isPacked ? { packed } : {}),
      ...trace,
      workload: { ...trace.workload, args: [text], key: workloadKey(trace.workload) },
      recording: { ...trace.recording, endReason, durationUs: timeUs + 41 * 2 ** 30 },
      plan: {
        count: planned.length,
        blob: Uint16Array.from(planned, (range) => range.index),
        offset: Float64Array.from(planned, (range) => range.offset),
        length: Float64Array.from(planned, (range) => range.length),
        dueUs: Float64Array.from(planned, (_, i) => (dueUs += ranges[i]?.[2] ?? 0)),
      },
    };
  });

test('what is encoded is decoded, and encodes to the same bytes again', () => {
  fc.assert(
    fc.property(traces, (trace) => {
      const bytes = encodeTrace(trace);
      const decoded = decodeTrace(bytes);
      assert.deepEqual(decoded, trace);
      assert.deepEqual(encodeTrace(decoded), bytes);
    }),
    { numRuns: 100 },
  );
});

test('a boot-like trace costs at most 8 bytes a record', () => {
  const trace = traceOf(bootLikeRecords(20_000, 5), syntheticLayers(5));
  const bytes = encodeTrace(trace);
  assert.ok(bytes.length <= 8 * 20_000, `${bytes.length / 20_000} bytes a record`);
});

/** Any decoding may succeed or throw a trace error, never anything else. */
function decodeAnything(bytes: Uint8Array): void {
  try {
    decodeTrace(bytes);
  } catch (error) {
    assert.ok(error instanceof ReplaybdError, String(error));
    assert.match(error.code, /^ERR_TRACE_/);
  }
}

/** The same file with its checksum made right, as an attacker would. */
function resealed(bytes: Uint8Array): Uint8Array {
  const sealed = Uint8Array.from(bytes);
  const covered = sealed.subarray(0, sealed.length - 4);
  new DataView(sealed.buffer).setUint32(covered.length, crc32c(covered));
  return sealed;
}

const sample = encodeTrace(traceOf(bootLikeRecords(60, 3), syntheticLayers(3)));

/** The same records, every third of which waited for half of the time since the one before it. */
const waitingRecords = (() => {
  const records = bootLikeRecords(60, 3);
  let waitUs = 0;
  const waits = records.timeUs.map((timeUs, i, times) => {
    if (i % 3 === 0) waitUs += Math.floor((timeUs - (times[i - 1] ?? 0)) / 2);
    return waitUs;
  });
  return { ...records, waitUs: waits };
})();
const waitingSample = encodeTrace(traceOf(waitingRecords, syntheticLayers(3)));

/** A trace whose plan of four ranges in three layers has been packed, but for layer 1. */
const packedTrace: Trace = {
  ...traceOf(bootLikeRecords(20, 3), syntheticLayers(3)),
  plan: {
    count: 4,
    blob: Uint16Array.of(0, 1, 2, 0),
    offset: Float64Array.of(0, 0, 4096, 40_960),
    length: Float64Array.of(8192, 4096, 4096, 4096),
    dueUs: Float64Array.of(0, 0, 5, 900),
  },
  packed: { digest: digestOfText('hot'), sizeBytes: 16_384, layers: [0, 2] },
};
const packedSample = encodeTrace(packedTrace);
const allSamples = [sample, waitingSample, packedSample];

test('every cut and every flipped bit of a file is noticed', () => {
  for (const file of allSamples) {
    for (let length = 0; length < file.length; length += 1) {
      assert.throws(() => decodeTrace(file.subarray(0, length)), ReplaybdError);
    }
    for (let bit = 0; bit < file.length * 8; bit += 1) {
      const flipped = Uint8Array.from(file);
      flipped[bit >> 3] ^= 1 << (bit & 7);
      assert.throws(() => decodeTrace(flipped), ReplaybdError);
    }
  }
});

test('a forged file with a good checksum gives a trace or a trace error', () => {
  const next = random(7);
  for (const file of allSamples) {
    for (let bit = 0; bit < (file.length - 4) * 8; bit += 1) {
      const flipped = Uint8Array.from(file);
      flipped[bit >> 3] ^= 1 << (bit & 7);
      decodeAnything(resealed(flipped));
    }
    for (let round = 0; round < 3000; round += 1) {
      const forged = Uint8Array.from(file);
      const changes = 1 + Math.floor(next() * 8);
      for (let i = 0; i < changes; i += 1) {
        forged[33 + Math.floor(next() * (forged.length - 33))] = Math.floor(next() * 256);
      }
      decodeAnything(resealed(forged));
    }
  }
});

test('a file without waits is of version 1.0, one with waits of 1.1', () => {
  assert.deepEqual([...sample.subarray(31, 33)], [1, 0]);
  assert.deepEqual([...waitingSample.subarray(31, 33)], [1, 1]);
  assert.deepEqual(decodeTrace(waitingSample).records, waitingRecords);
  // Every third of 60 records: two small numbers each.
  assert.ok(waitingSample.length - sample.length < 20 * 3 + 12, 'a wait costs few bytes');
});

test('a packed trace is of version 1.2, and packs the plan it has', () => {
  assert.deepEqual([...packedSample.subarray(31, 33)], [1, 2]);
  assert.deepEqual(decodeTrace(packedSample), packedTrace);
  const { packed } = packedTrace;
  assert.ok(packed !== undefined);
  const wrong: [string, object][] = [
    ['another size', { ...packed, sizeBytes: 16_385 }],
    ['a layer more', { ...packed, layers: [0, 1, 2] }],
    ['a layer twice', { ...packed, layers: [0, 0, 2] }],
    ['no layers', { ...packed, layers: [] }],
    ['a layer that is not there', { ...packed, layers: [0, 2, 3] }],
    ['a bad digest', { ...packed, digest: 'sha256:0' }],
  ];
  for (const [what, other] of wrong) {
    const trace = { ...packedTrace, packed: other as Trace['packed'] } as Trace;
    assert.throws(() => encodeTrace(trace), { code: 'ERR_TRACE_FORMAT' }, what);
  }
  const values = [[], 7, null, [packed.digest, 16_384], [packed.digest, 16_384, [0, 2], 1]];
  for (const value of values) {
    const forged = forge((body) => (body.packed = value), packedSample);
    assert.throws(() => decodeTrace(forged), /^ReplaybdError.*packed/s);
  }
  const old = forge((body) => (body.version = [1, 1]), packedSample);
  assert.throws(() => decodeTrace(old), { code: 'ERR_TRACE_FORMAT' });
});

test('random bytes behind a good head are refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (tail) => {
      const forged = Uint8Array.from([...sample.subarray(0, 33), ...tail, 0, 0, 0, 0]);
      assert.throws(() => decodeTrace(resealed(forged)), ReplaybdError);
      assert.throws(() => decodeTrace(tail), { code: 'ERR_TRACE_MAGIC' });
    }),
  );
});

/** The decoded body of a good file with one change, packed and sealed again. */
function forge(change: (body: Body) => void, file = sample): Uint8Array {
  const packr = new Packr({ useRecords: false, variableMapSize: true });
  const body = packr.unpack(file) as Body;
  change(body);
  return resealed(new Uint8Array(packr.pack(body)));
}

type Group = Record<string, unknown>;

interface Body {
  version: unknown;
  image: Group;
  workload: Group;
  recording: Group;
  runs: unknown;
  records: Group;
  plan: unknown;
  packed?: unknown;
}

const refusals: [string, (body: Body) => void, string][] = [
  ['a newer major version', (body) => (body.version = [2, 0]), 'ERR_TRACE_VERSION'],
  ['an unknown key', (body) => (body.image.extra = 1), 'ERR_TRACE_FORMAT'],
  ['a missing key', (body) => delete body.workload.env, 'ERR_TRACE_FORMAT'],
  ['too many records', (body) => (body.records.count = 1_000_001), 'ERR_TRACE_FORMAT'],
  ['more records than columns', (body) => (body.records.count = 999_999), 'ERR_TRACE_FORMAT'],
  ['fewer records than columns', (body) => (body.records.count = 10), 'ERR_TRACE_FORMAT'],
  [
    'a device that is too small',
    (body) => (body.recording.deviceSizeBytes = 0),
    'ERR_TRACE_FORMAT',
  ],
  ['records after the end', (body) => (body.recording.durationUs = 5), 'ERR_TRACE_FORMAT'],
  ['a negative number', (body) => (body.recording.startedAtMs = -1), 'ERR_TRACE_FORMAT'],
  ['a fraction', (body) => (body.recording.startedAtMs = 0.5), 'ERR_TRACE_FORMAT'],
  ['an odd sector unit', (body) => (body.records.sectorUnit = 3), 'ERR_TRACE_FORMAT'],
  ['no layers', (body) => (body.image.layers = []), 'ERR_TRACE_FORMAT'],
  ['a bad digest', (body) => (body.image.manifestDigest = 'sha256:0'), 'ERR_TRACE_FORMAT'],
  ['a bad key', (body) => (body.workload.key = '../../etc'), 'ERR_TRACE_FORMAT'],
  ['an unknown end', (body) => (body.recording.endReason = 'boom'), 'ERR_TRACE_FORMAT'],
  ['a column as text', (body) => (body.records.lba = 'x'), 'ERR_TRACE_FORMAT'],
  ['a date', (body) => (body.workload.args = [new Date(0)]), 'ERR_TRACE_FORMAT'],
  ['a long text', (body) => (body.workload.args = ['a'.repeat(32_769)]), 'ERR_TRACE_LIMIT'],
  ['many texts', (body) => (body.workload.args = Array(1025).fill('a')), 'ERR_TRACE_LIMIT'],
  ['deep nesting', (body) => (body.workload.args = [[[[[[[[1]]]]]]]]), 'ERR_TRACE_FORMAT'],
  ['zero runs', (body) => (body.runs = 0), 'ERR_TRACE_FORMAT'],
  [
    'waits in a file that is too old for them',
    (body) => (body.records.wait = Uint8Array.of(0, 0)),
    'ERR_TRACE_FORMAT',
  ],
  ['a wait of a record that is not there', waits(60, 0), 'ERR_TRACE_FORMAT'],
  ['a wait longer than the time', waits(1, 2000), 'ERR_TRACE_FORMAT'],
  ['half a wait', waits(1), 'ERR_TRACE_FORMAT'],
  ['waits of no numbers', (body) => waits()(body, 'none'), 'ERR_TRACE_FORMAT'],
  ['a plan beyond its blob', (body) => (body.plan = planMap(131_072, 1)), 'ERR_TRACE_FORMAT'],
  ['a plan before its blob', (body) => (body.plan = planMap(-1, 1)), 'ERR_TRACE_FORMAT'],
  ['a huge plan range', (body) => (body.plan = planMap(0, 2 ** 40)), 'ERR_TRACE_FORMAT'],
];

/** Makes a file of version 1.1 whose `wait` column holds these numbers, or is something else. */
function waits(...numbers: number[]): (body: Body, value?: unknown) => void {
  return (body, value = Buffer.concat(numbers.map(varint))) => {
    body.version = [1, 1];
    body.records.wait = value;
  };
}

function varint(value: number): Uint8Array {
  const bytes = [];
  let rest = value;
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 128);
  return Uint8Array.from([...bytes, rest]);
}

/** A plan of one range of blob 0, in granules; zigzag varints are written out by hand. */
function planMap(first: number, granules: number): object {
  const zigzag = first < 0 ? -2 * first - 1 : 2 * first;
  return {
    count: 1,
    blob: varint(0),
    offset: varint(zigzag),
    length: varint(granules - 1),
    due: varint(0),
  };
}

for (const [what, change, code] of refusals) {
  test(`refuses ${what}`, () => {
    assert.throws(
      () => decodeTrace(forge(change), 'some.trace'),
      (error: unknown) => {
        assert.ok(error instanceof ReplaybdError);
        assert.equal(error.code, code);
        assert.match(error.message, /^some\.trace: /);
        return true;
      },
    );
  });
}

test('accepts the forgery that changes nothing, and ranges at the very end of a blob', () => {
  assert.deepEqual(decodeTrace(forge(() => undefined)), decodeTrace(sample));
  const last = decodeTrace(forge((body) => (body.plan = planMap(131_071, 1))));
  assert.equal(last.plan.offset[0] + last.plan.length[0], 512 * 1024 * 1024);
});

test('a newer minor version may add keys', () => {
  const bytes = forge((body) => {
    body.version = [1, 3];
    body.image.comment = 'new';
  });
  assert.deepEqual(decodeTrace(bytes), decodeTrace(sample));
});

test('a map key that occurs twice is refused', () => {
  const at = Buffer.from(sample).indexOf('args');
  const forged = Uint8Array.from(sample);
  // 'env' becomes a second 'key' of the same map.
  forged.set(Buffer.from('key'), Buffer.from(sample).indexOf('\xa3env', at, 'latin1') + 1);
  assert.throws(() => decodeTrace(resealed(forged)), { code: 'ERR_TRACE_FORMAT' });
});

test('a file above the size limit is refused before it is looked at', () => {
  assert.throws(() => decodeTrace(new Uint8Array(traceLimits.fileBytesMax + 1)), {
    code: 'ERR_TRACE_LIMIT',
  });
});

test('a recording too large for the format keeps its earliest records', () => {
  const next = random(3);
  let timeUs = 0;
  const rows = Array.from({ length: 900_000 }, () => ({
    timeUs: (timeUs += 70_000),
    lba: Math.floor(next() * 2 ** 26),
    sectors: 1 + Math.floor(next() * 60_000),
    layer: Math.floor(next() * 3),
  }));
  const trace = traceOf(recordsOf(rows), syntheticLayers(3));
  assert.throws(() => encodeTrace(trace), { code: 'ERR_TRACE_LIMIT' });
  const kept = decodeTrace(encodeTraceWithinLimit(trace));
  assert.equal(kept.records.count, 450_000);
  assert.deepEqual(kept.records.lba, trace.records.lba.slice(0, 450_000));
});

test('the encoder refuses columns that break the rules', () => {
  const layers = syntheticLayers(2);
  const row = { timeUs: 10, lba: 8, sectors: 8, layer: 0 };
  const bad = [
    [row, { ...row, timeUs: 9 }],
    [{ ...row, timeUs: 1.5 }],
    [{ ...row, sectors: 0 }],
    [{ ...row, lba: 0.5 }],
    [{ ...row, lba: 2 ** 40 }],
    [{ ...row, layer: 2 }],
    [{ ...row, weight: 2 }],
    [{ ...row, waitUs: 11 }],
    [{ ...row, waitUs: 0.5 }],
    [
      { ...row, waitUs: 2 },
      { ...row, waitUs: 0 },
    ],
    [
      { ...row, waitUs: 2 },
      { ...row, waitUs: 3 },
    ],
  ];
  for (const rows of bad) {
    assert.throws(() => encodeTrace(traceOf(recordsOf(rows), layers)), {
      code: 'ERR_TRACE_FORMAT',
    });
  }
  encodeTrace(traceOf(recordsOf([row]), layers));
});

/** Code blocks of the format's page, by the text of the line before them. */
function vectors(): Map<string, string> {
  const page = readFileSync(new URL('../../docs/trace-format.md', import.meta.url), 'utf8');
  const found = new Map<string, string>();
  for (const [, title, body] of page.matchAll(/^Vector (\S+):\n\n```\w*\n([^`]*)```$/gm)) {
    found.set(title, body);
  }
  return found;
}

test('the vectors of docs/trace-format.md are what the code writes and reads', () => {
  const found = vectors();
  const names = [...found.keys()].filter((name) => !name.endsWith('-json'));
  assert.ok(names.length >= 2, 'the page has vectors');
  for (const name of names) {
    const hex = (found.get(name) ?? '').replaceAll(/\s/g, '');
    const bytes = new Uint8Array(Buffer.from(hex, 'hex'));
    const trace = decodeTrace(bytes, name);
    assert.deepEqual(encodeTrace(trace), bytes);
    const asJson: unknown = JSON.parse(JSON.stringify(trace, plainArrays));
    assert.deepEqual(asJson, JSON.parse(found.get(`${name}-json`) ?? ''));
  }
});

function plainArrays(_key: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) ? Array.from(value as Float64Array) : value;
}
