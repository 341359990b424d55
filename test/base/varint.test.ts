import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { VarintReader, VarintWriter } from '../../src/base/varint.ts';

// Goal: whatever a writer wrote, a reader reads back, and malformed bytes throw ERR_VARINT.
// Method: random integers over the whole safe range; hand-made malformed encodings.

test('varints round-trip over the whole safe range', () => {
  fc.assert(
    fc.property(fc.array(fc.maxSafeInteger()), (values) => {
      const writer = new VarintWriter();
      for (const value of values) writer.writeSigned(Math.trunc(value / 2));
      const reader = new VarintReader(writer.finish());
      for (const value of values) {
        assert.equal(reader.readSigned() + 0, Math.trunc(value / 2) + 0);
      }
      assert.ok(reader.atEnd);
    }),
  );
});

test('malformed varints are refused', () => {
  const malformed = [[], [0x80], [0x80, 0x00], Array(9).fill(0xff), [...Array(7).fill(0xff), 0x1f]];
  for (const bytes of malformed) {
    const reader = new VarintReader(Uint8Array.from(bytes));
    assert.throws(() => reader.readUnsigned(), { code: 'ERR_VARINT' });
  }
});
