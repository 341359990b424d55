import type { PreparedSimulation } from './prepared.ts';
import { simulate } from './simulate.ts';
import {
  SIMULATION_POLICIES,
  type SimulatedLink,
  type SimulationOptions,
  type SimulationResult,
} from './types.ts';

/** What can be chosen, and how far choosing it moves a start. */
export interface KnobSwing {
  readonly knob: 'concurrency' | 'range size' | 'policy';
  /** The best and the worst choice tried, all else as it was. */
  readonly best: string;
  readonly bestMs: number;
  readonly worst: string;
  readonly worstMs: number;
}

/** A link of a table. */
export interface GridRow extends Omit<SimulationResult, 'curve'> {
  /** Prefetch makes the start shorter by at least a tenth. */
  readonly pays: boolean;
  /** Greatest swing first. */
  readonly knobs: readonly KnobSwing[];
}

const CONCURRENCIES = [1, 4, 16, 48];
const RANGE_KIB = [64, 256, 1024, 4096];
const PAYS_SHARE = 0.9;

/** Simulates one link with the options given, and then with each knob turned by itself. */
export function simulateGridRow(prepared: PreparedSimulation, options: SimulationOptions): GridRow {
  const { curve: _curve, ...result } = simulate(prepared, options);
  const choose = (name: string, change: Partial<SimulationOptions>): [string, number] => [
    name,
    simulate(prepared, { ...options, ...change }).predictedMs,
  ];
  const swings = [
    swing(
      'concurrency',
      CONCURRENCIES.map((concurrency) => choose(String(concurrency), { concurrency })),
    ),
    swing(
      'range size',
      RANGE_KIB.map((kib) => choose(`${kib} KiB`, { rangeBytes: kib * 1024 })),
    ),
    swing(
      'policy',
      SIMULATION_POLICIES.filter((policy) => policy !== 'none').map((policy) =>
        choose(policy, { policy }),
      ),
    ),
  ];
  return {
    ...result,
    pays: result.predictedMs <= PAYS_SHARE * result.lazyMs,
    knobs: swings.sort((a, b) => spanOf(b) - spanOf(a)),
  };
}

/** Every bandwidth with every round trip. */
export function gridLinks(
  bytesPerSecond: readonly number[],
  roundTripMs: readonly number[],
): SimulatedLink[] {
  return bytesPerSecond.flatMap((rate) =>
    roundTripMs.map((trip) => ({ bytesPerSecond: rate, roundTripMs: trip })),
  );
}

function swing(knob: KnobSwing['knob'], tried: readonly [string, number][]): KnobSwing {
  const sorted = tried.toSorted(([, a], [, b]) => a - b);
  const [best, bestMs] = sorted[0];
  const [worst, worstMs] = sorted[sorted.length - 1];
  return { knob, best, bestMs, worst, worstMs };
}

function spanOf({ bestMs, worstMs }: KnobSwing): number {
  return worstMs - bestMs;
}
