import type { TracePacked, TracePlan } from './trace.ts';

/** A range of a plan, and where its bytes stand in the hot blob. */
export interface HotRange {
  /** Number of the range in the plan. */
  readonly index: number;
  /** Index into the trace's layers. */
  readonly layer: number;
  readonly offset: number;
  readonly length: number;
  /** Offset in the hot blob. */
  readonly at: number;
}

/**
 * What a hot blob holds, in its order, which is the plan's:
 *
 *   plan       | a: 0..2 | b: 0..1 | c: 0..9 | a: 7..9 |       c is not packed
 *   hot blob   | a: 0..2 | b: 0..1 | a: 7..9 |
 */
export function* hotRanges(
  plan: TracePlan,
  layers: TracePacked['layers'],
): Generator<HotRange, void, undefined> {
  const packed = new Set(layers);
  let at = 0;
  for (let index = 0; index < plan.count; index += 1) {
    const layer = plan.blob[index];
    if (!packed.has(layer)) continue;
    const length = plan.length[index];
    yield { index, layer, offset: plan.offset[index], length, at };
    at += length;
  }
}

/** Size of a hot blob. */
export function hotBytes(plan: TracePlan, layers: TracePacked['layers']): number {
  let bytes = 0;
  for (const { length } of hotRanges(plan, layers)) bytes += length;
  return bytes;
}
