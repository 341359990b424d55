import { SECTOR_BYTES } from '../../src/base/limits.ts';
import { randomOf } from '../../bench/support/boot-reads.ts';

/** What a process that will be killed does to its device: the same for the same seed. */
export interface CrashOp {
  /** From 1. */
  number: number;
  kind: 'write' | 'discard' | 'flush' | 'snapshot';
  lba: number;
  sectors: number;
}

export const DISK_SECTORS = 2048;
/** Ops without end would outlive a test that fails to kill. */
const OPS_MAX = 200_000;
const SNAPSHOT_EVERY = 997;

export function* crashOps(seed: number, firstNumber: number): Generator<CrashOp> {
  const next = randomOf(seed);
  for (let number = 1; number < firstNumber + OPS_MAX; number += 1) {
    const lba = Math.floor(next() * DISK_SECTORS);
    const sectors = Math.min(1 + Math.floor(next() * 24), DISK_SECTORS - lba);
    const chance = next();
    const change = chance < 0.7 ? 'write' : chance < 0.9 ? 'discard' : 'flush';
    const kind = number % SNAPSHOT_EVERY === 0 ? 'snapshot' : change;
    if (number >= firstNumber) yield { number, kind, lba, sectors };
  }
}

/** The bytes of a write: every sector tells which operation wrote it. */
export function sectorsOf({ number, sectors }: CrashOp): Buffer {
  const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
  for (let at = 0; at < bytes.length; at += 8) bytes.writeDoubleLE(number, at);
  return bytes;
}

/** Which operation wrote a sector; 0 for zeros. NaN when it is a mixture. */
export function writerOf(sector: Buffer): number {
  const number = sector.readDoubleLE(0);
  for (let at = 8; at < sector.length; at += 8) {
    if (sector.readDoubleLE(at) !== number) return Number.NaN;
  }
  return number;
}
