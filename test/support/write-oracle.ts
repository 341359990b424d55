import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { BlockDevice } from '../../src/device/block-device.ts';

/** One thing that a guest does to a disk; offsets and lengths in bytes. */
export type DiskOperation =
  | { kind: 'write'; offset: number; length: number; seed: number; fua: boolean }
  | { kind: 'discard' | 'zero' | 'read'; offset: number; length: number }
  | { kind: 'flush' | 'reopen' | 'snapshot' };

const SECTOR = 512;

/** Random operations on a disk of `sectors`, as fsx makes them on a file. */
export function operations(sectors: number): fc.Arbitrary<DiskOperation[]> {
  const range = fc
    .tuple(fc.nat(sectors - 1), fc.oneof(fc.constant(1), fc.nat(15), fc.nat(600)))
    .map(([lba, count]) => ({
      offset: lba * SECTOR,
      length: Math.max(1, Math.min(count, sectors - lba)) * SECTOR,
    }));
  const ranged = (kind: 'discard' | 'zero' | 'read') => range.map((one) => ({ kind, ...one }));
  const write = fc
    .tuple(range, fc.nat(255), fc.boolean())
    .map(([one, seed, fua]) => ({ kind: 'write' as const, ...one, seed, fua }));
  const whole = (kind: 'flush' | 'reopen' | 'snapshot') => fc.constant({ kind });
  return fc.array(
    fc.oneof(
      { weight: 10, arbitrary: write },
      { weight: 3, arbitrary: ranged('discard') },
      { weight: 3, arbitrary: ranged('zero') },
      { weight: 8, arbitrary: ranged('read') },
      { weight: 2, arbitrary: whole('flush') },
      { weight: 1, arbitrary: whole('reopen') },
      { weight: 1, arbitrary: whole('snapshot') },
    ),
    { minLength: 30, maxLength: 120 },
  );
}

/** Bytes of a write: they tell the write and the place. */
export function writtenBytes({ offset, length, seed }: DiskOperation & { kind: 'write' }): Buffer {
  const bytes = Buffer.alloc(length, seed);
  for (let at = 0; at < length; at += SECTOR) bytes.writeUInt32LE((offset + at) / SECTOR, at + 8);
  return bytes;
}

/** Does to the flat disk what an operation does to the device. */
export function applyToOracle(oracle: Buffer, operation: DiskOperation): void {
  if (operation.kind === 'write') writtenBytes(operation).copy(oracle, operation.offset);
  if (operation.kind === 'discard' || operation.kind === 'zero') {
    oracle.fill(0, operation.offset, operation.offset + operation.length);
  }
}

/** Reads a whole device, as a front end would. */
export async function readWhole(
  device: Pick<BlockDevice, 'readCached' | 'read' | 'virtualSizeBytes'>,
): Promise<Buffer> {
  const bytes = Buffer.alloc(device.virtualSizeBytes);
  const step = 256 * 1024;
  for (let at = 0; at < bytes.length; at += step) {
    const into = bytes.subarray(at, Math.min(at + step, bytes.length));
    if (!device.readCached(at, into)) await device.read(at, into);
  }
  return bytes;
}

/** Says where two disks differ, not with all of their bytes. */
export function assertSameDisk(found: Buffer, expected: Buffer, what: string): void {
  assert.equal(found.length, expected.length, what);
  if (found.equals(expected)) return;
  let at = 0;
  while (found[at] === expected[at]) at += 1;
  const sector = Math.floor(at / SECTOR);
  assert.fail(`${what}: byte ${at} (sector ${sector}): ${found[at]}, expected ${expected[at]}`);
}
