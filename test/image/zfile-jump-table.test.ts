// Goal: the offsets in memory are the sums of the stored lengths, at every group's edge, and
// lengths no block can have are found. Method: tables around multiples of the group size against
// plain addition.
import assert from 'node:assert';
import { test } from 'node:test';
import { crc32cRaw } from '../../src/base/crc32c.ts';
import { JUMP_TABLE_GROUP_SHIFT } from '../../src/image/stack-map.ts';
import { loadJumpTable } from '../../src/image/zfile/jump-table.ts';

const BOUNDS = { min: 5, max: 66_052 };
const START = 2048;

function storedTable(blockCount: number): { lengths: Uint32Array; bytes: Buffer } {
  const lengths = Uint32Array.from(
    { length: blockCount },
    (_, block) => BOUNDS.min + ((block * 2_654_435_761) % (BOUNDS.max - BOUNDS.min + 1)),
  );
  // An odd address, as in a blob: entries there have any alignment.
  const bytes = Buffer.alloc(lengths.byteLength + 1).subarray(1);
  bytes.set(new Uint8Array(lengths.buffer));
  return { lengths, bytes };
}

test('offsets are the sums of the stored lengths', () => {
  for (const blockCount of [0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 70_000]) {
    const { lengths, bytes } = storedTable(blockCount);
    const { groupBase, withinGroup, end, crc, firstBad } = loadJumpTable(bytes, START, BOUNDS);
    assert.strictEqual(withinGroup.length, blockCount + 1);
    let sum = START;
    for (let block = 0; block <= blockCount; block += 1) {
      assert.strictEqual(groupBase[block >>> JUMP_TABLE_GROUP_SHIFT] + withinGroup[block], sum);
      sum += lengths[block] ?? 0;
    }
    assert.strictEqual(end, sum);
    assert.strictEqual(crc, crc32cRaw(0, bytes));
    assert.strictEqual(firstBad, null);
  }
});

test('the first length outside the bounds is found', () => {
  for (const storedBytes of [0, BOUNDS.min - 1, BOUNDS.max + 1, 0xffff_ffff]) {
    const { bytes } = storedTable(10_000);
    for (const block of [9999, 5000]) {
      bytes.writeUInt32LE(storedBytes, block * 4);
      const { firstBad } = loadJumpTable(bytes, START, BOUNDS);
      assert.deepStrictEqual(firstBad, { block, storedBytes });
    }
  }
});
