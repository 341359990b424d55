import type { DueRange } from '../plan-window.ts';
import type { SimulationPolicy } from './types.ts';
import type { Workload } from './workload.ts';

/** Accesses so close together count as of one time where runs decide. */
const SCORE_STEP_US = 10_000;

/**
 * A plan's ranges in the order that a policy fetches them: metadata first, without which there is no
 * guest.
 */
export function* planOrder(
  { plan, weight }: Workload,
  policy: SimulationPolicy,
): Generator<DueRange, void, undefined> {
  const { blob, offset, length, dueUs } = plan;
  const order = Uint32Array.from({ length: plan.count }, (_, i) => i);
  const isMetadata = (i: number): number => (dueUs[i] === 0 ? 0 : 1);
  if (policy === 'lba') {
    order.sort(
      (a, b) =>
        isMetadata(a) - isMetadata(b) || blob[a] - blob[b] || offset[a] - offset[b] || a - b,
    );
  } else if (policy === 'score') {
    const step = (i: number): number => Math.floor(dueUs[i] / SCORE_STEP_US);
    order.sort(
      (a, b) =>
        isMetadata(a) - isMetadata(b) || step(a) - step(b) || weight[b] - weight[a] || a - b,
    );
  }
  for (const i of order) {
    // What is fetched by place is joined by place too, whenever it is due.
    const due = policy === 'lba' ? 0 : dueUs[i];
    yield { blob: blob[i], offset: offset[i], length: length[i], dueUs: due };
  }
}
