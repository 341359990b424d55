import { simulateLimits } from '../../base/limits.ts';
import type { Trace } from '../../trace/trace.ts';
import { makeWorkload, UNIT_BYTES_MAX, type Workload } from './workload.ts';

/** A trace made ready: what its simulated starts have in common is made once. */
export class PreparedSimulation {
  readonly #trace: Trace;
  /** By the most bytes of a unit: few powers of two. */
  readonly #workloads = new Map<number, Workload>();
  /** What lazy starts take, by what they depend on; the oldest is dropped for a new one. */
  readonly #lazyMs = new Map<string, number>();

  /** Throws ERR_SIMULATE_PLAN, ERR_SIMULATE_LIMIT as makeWorkload does. */
  constructor(trace: Trace) {
    this.#trace = trace;
    this.workload(UNIT_BYTES_MAX);
  }

  workload(unitBytesMax: number): Workload {
    const known = this.#workloads.get(unitBytesMax);
    if (known !== undefined) return known;
    const workload = makeWorkload(this.#trace, unitBytesMax);
    this.#workloads.set(unitBytesMax, workload);
    return workload;
  }

  /** `facts`: all that a lazy start's time depends on, beside the trace. */
  lazyMs(facts: readonly (number | boolean)[], simulate: () => number): number {
    const key = facts.join(' ');
    const known = this.#lazyMs.get(key);
    if (known !== undefined) return known;
    const lazyMs = simulate();
    const [oldest] = this.#lazyMs.keys();
    if (this.#lazyMs.size >= simulateLimits.lazyStartsKept) this.#lazyMs.delete(oldest);
    this.#lazyMs.set(key, lazyMs);
    return lazyMs;
  }
}
