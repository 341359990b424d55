import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { codeOf } from '../../src/base/errors.ts';
import { crc32cRaw } from '../../src/base/crc32c.ts';
import {
  decodeOverlaybdTrace,
  encodeOverlaybdTrace,
  overlaybdTraceOf,
  readsOf,
} from '../../src/trace/overlaybd/format.ts';

// Goal: overlaybd's traces are read as the original wrote them, and written as it reads them.
// Method: files of the original and a golden vector, byte by byte; random records; random damage.

const fixtures = new URL('../fixtures/trace/', import.meta.url).pathname;
const recorded = readFileSync(`${fixtures}trace`);
const decoded = JSON.parse(readFileSync(`${fixtures}trace.json`, 'utf8')) as {
  records: [string, number, number, number][];
};

/** What the original would have written had it cleared header and records first. */
function withZeroPadding(bytes: Buffer): Buffer {
  const clean = Buffer.from(bytes);
  clean.fill(0, 4, 8).fill(0, 20, 24);
  for (let at = 24; at < clean.length; at += 24) clean.fill(0, at + 1, at + 4);
  clean.writeUInt32LE(crc32cRaw(0, clean.subarray(24)), 16);
  return clean;
}

test("the original's recording reads as it says, and is written again byte for byte", () => {
  const trace = decodeOverlaybdTrace(recorded);
  const rows = [...readsOf(trace)].map(({ layer, length, offset }) => ['R', layer, length, offset]);
  assert.deepEqual(rows, decoded.records);
  assert.deepEqual(Buffer.from(encodeOverlaybdTrace(trace)), withZeroPadding(recorded));
});

test('a golden vector with garbage in its padding', () => {
  const bytes = hex(`
    2018efc2 00000000 48000000 00000000 3f8a13b7 00000000
    52100000 02000000 00100000 00000000 00000000 00000000
    52000100 02000000 00000100 00000000 00001000 00000000
    52100000 02000000 00100000 00000000 00200000 00000000`);
  const trace = decodeOverlaybdTrace(bytes);
  assert.deepEqual(
    [...readsOf(trace)],
    [
      { layer: 2, offset: 0, length: 4096 },
      { layer: 2, offset: 1_048_576, length: 65_536 },
      { layer: 2, offset: 8192, length: 4096 },
    ],
  );
  assert.deepEqual(Buffer.from(encodeOverlaybdTrace(trace)), withZeroPadding(bytes));
});

function hex(text: string): Buffer {
  return Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
}

test('what the original drops as a whole is refused, with the reason', () => {
  const refused = {
    'trace.bad-crc': 'ERR_TRACE_CHECKSUM',
    'trace.bad-magic': 'ERR_TRACE_MAGIC',
    'trace.truncated': 'ERR_TRACE_SIZE',
  };
  for (const [name, code] of Object.entries(refused)) {
    const bytes = readFileSync(`${fixtures}${name}`);
    assert.throws(() => decodeOverlaybdTrace(bytes, name), { code, message: new RegExp(name) });
  }
  assert.throws(() => decodeOverlaybdTrace(Buffer.alloc(0)), { code: 'ERR_TRACE_MAGIC' });
  assert.throws(() => decodeOverlaybdTrace(recorded.subarray(0, 23)), { code: 'ERR_TRACE_MAGIC' });
});

test('only reads are replayed, and not those of nothing', () => {
  const trace = overlaybdTraceOf([
    { layer: 0, offset: 0, length: 512 },
    { layer: 1, offset: 512, length: 0 },
    { layer: 2, offset: 0, length: 4096 },
  ]);
  trace.op[2] = 'W'.charCodeAt(0);
  const again = decodeOverlaybdTrace(encodeOverlaybdTrace(trace));
  assert.deepEqual(again, trace, 'what is not replayed is kept');
  assert.deepEqual([...readsOf(again)], [{ layer: 0, offset: 0, length: 512 }]);
});

const safe = fc.oneof(
  fc.nat(2 ** 31 - 1),
  fc.maxSafeNat().map((n) => Math.floor(n / 2)),
);
const reads = fc.array(
  fc.record({ layer: fc.integer({ min: 0, max: 2 ** 32 - 1 }), offset: safe, length: safe }),
  { maxLength: 50 },
);

test('any reads come back, lengths beyond 1 MiB too', () => {
  fc.assert(
    fc.property(reads, (list) => {
      const trace = overlaybdTraceOf(list);
      const bytes = encodeOverlaybdTrace(trace);
      assert.equal(bytes.length, 24 + 24 * list.length);
      assert.deepEqual(decodeOverlaybdTrace(bytes), trace);
    }),
  );
});

test('numbers that no recording holds are refused', () => {
  const bytes = Buffer.from(
    encodeOverlaybdTrace(overlaybdTraceOf([{ layer: 0, offset: 0, length: 1 }])),
  );
  for (const [at, value] of [
    [24 + 16, -1n],
    [24 + 16, 2n ** 53n],
    [24 + 8, -1n],
    [24 + 8, 2n ** 53n],
  ] as const) {
    const forged = Buffer.from(bytes);
    forged.writeBigInt64LE(value, at);
    forged.writeUInt32LE(crc32cRaw(0, forged.subarray(24)), 16);
    assert.throws(() => decodeOverlaybdTrace(forged), { code: 'ERR_TRACE_FORMAT' });
  }
});

test('any damage is an error of its own, and nothing else', () => {
  const codes = new Set<string>();
  const damage = fc.tuple(fc.nat(recorded.length - 1), fc.integer({ min: 1, max: 255 }));
  fc.assert(
    fc.property(damage, fc.option(fc.nat(recorded.length - 1)), ([at, xor], cut) => {
      const bytes = Buffer.from(recorded);
      bytes[at] ^= xor;
      const found = cut === null ? bytes : bytes.subarray(0, cut);
      try {
        decodeOverlaybdTrace(found);
      } catch (error) {
        assert.match(codeOf(error), /^ERR_TRACE_(MAGIC|SIZE|CHECKSUM|FORMAT)$/);
        codes.add(codeOf(error));
        return;
      }
      // The header's padding is all that nothing vouches for.
      assert.ok(cut === null && ((at >= 4 && at < 8) || (at >= 20 && at < 24)), `byte ${at}`);
    }),
  );
  assert.ok(codes.size >= 3);
});
