import { GRANULE_BYTES } from '../../base/limits.ts';
import type { Trace } from '../../trace/trace.ts';
import { coldStartBoundMs } from '../bound.ts';
import { ColdStart, type ColdStartOutcome } from './cold-start.ts';
import type { SimulationOptions, SimulationPolicy, SimulationResult } from './types.ts';
import { makeWorkload, type Workload } from './workload.ts';

/** Units of a workload: what the smallest prefetch request brings. */
const UNIT_BYTES_MAX = 64 * 1024;
const REFILL_BYTES = 256 * 1024;
/** A connection and the manifest; a registry that wants a token costs two more. */
const SETUP_ROUND_TRIPS = 2;

/**
 * How long a cold start of a trace's workload takes on a link: a discrete-event simulation of the
 * guest, the fetcher's two lanes and TCP. The same trace and options always give the same result.
 * Throws ERR_SIMULATE_PLAN, ERR_SIMULATE_LIMIT.
 */
export function simulateColdStart(trace: Trace, options: SimulationOptions): SimulationResult {
  const { link, policy = 'first-access', think = 1 } = options;
  const workload = makeWorkload(trace, unitBytesOf(policy, options.rangeBytes));
  const lastMs = workload.accesses.at(-1)?.dueMs ?? 0;
  const warmMs = options.warmMs ?? lastMs * think;
  const setupMs = (options.setupRoundTrips ?? SETUP_ROUND_TRIPS) * link.roundTripMs;
  const run = (which: SimulationPolicy): ColdStartOutcome => {
    const lazily = which === 'none';
    return new ColdStart({
      workload,
      link,
      policy: which,
      concurrency: lazily ? null : (options.concurrency ?? null),
      rangeBytes: lazily ? null : (options.rangeBytes ?? null),
      refillBytes: options.rangeBytes ?? REFILL_BYTES,
      readAhead: options.readAhead ?? true,
      ...{ think, warmMs, setupMs },
    }).run();
  };
  const outcome = run(policy);
  const lazyMs = policy === 'none' ? outcome.predictedMs : run('none').predictedMs;
  const boundMs = boundOf(workload, { warmMs, think, setupMs, options });
  const isLazySlower = lazyMs > warmMs;
  return {
    policy,
    link,
    ...outcome,
    lazyMs,
    warmMs,
    boundMs,
    ratio: outcome.predictedMs / boundMs,
    gapClosure: isLazySlower ? (lazyMs - outcome.predictedMs) / (lazyMs - warmMs) : null,
  };
}

/** The bound over what the start needs before it ends. */
function boundOf(
  { plan }: Workload,
  facts: { warmMs: number; think: number; setupMs: number; options: SimulationOptions },
): number {
  const { warmMs, think, setupMs, options } = facts;
  const dueUs = plan.dueUs.map((timeUs) => timeUs * think);
  const firstBehind = dueUs.findIndex((timeUs) => timeUs > warmMs * 1000);
  const count = firstBehind === -1 ? plan.count : firstBehind;
  const { bytesPerSecond, roundTripMs } = options.link;
  const link = { setupMs, firstByteMs: roundTripMs, bytesPerSecond };
  return coldStartBoundMs(warmMs, { ...plan, count, dueUs }, link);
}

/** No unit may lie in two of the requests that a policy makes. */
function unitBytesOf(policy: SimulationPolicy, rangeBytes: number | undefined): number {
  if (policy !== 'overlaybd-fifo' || rangeBytes === undefined) return UNIT_BYTES_MAX;
  let unitBytes = UNIT_BYTES_MAX;
  while (unitBytes > GRANULE_BYTES && rangeBytes % unitBytes !== 0) unitBytes /= 2;
  return unitBytes;
}
