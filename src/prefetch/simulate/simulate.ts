import { GRANULE_BYTES, registryLimits } from '../../base/limits.ts';
import type { Trace } from '../../trace/trace.ts';
import { coldStartBoundMs } from '../bound.ts';
import { ColdStart, type ColdStartOutcome } from './cold-start.ts';
import { HOST_COST_NONE } from './host-cost.ts';
import type { OutcomeLog } from './outcomes.ts';
import { PreparedSimulation } from './prepared.ts';
import type { HostCost, SimulationOptions, SimulationPolicy, SimulationResult } from './types.ts';
import { UNIT_BYTES_MAX, type Workload } from './workload.ts';

const REFILL_BYTES = 256 * 1024;
/** A connection and the manifest; a registry that wants a token costs two more. */
const SETUP_ROUND_TRIPS = 2;

/** Options with what they leave out. */
interface StartFacts {
  readonly workload: Workload;
  readonly unitBytesMax: number;
  readonly think: number;
  readonly warmMs: number;
  readonly setupMs: number;
  readonly warmSetupMs: number;
  readonly host: HostCost;
  readonly readAhead: boolean;
}

/**
 * How long a cold start of a trace's workload takes on a link: a discrete-event simulation of the
 * guest, the fetcher's two lanes and TCP. The same trace and options always give the same result.
 * Throws ERR_SIMULATE_PLAN, ERR_SIMULATE_LIMIT. For one start; see `prepareSimulation` for more.
 */
export function simulateColdStart(trace: Trace, options: SimulationOptions): SimulationResult {
  return simulate(prepareSimulation(trace), options);
}

/**
 * Makes a trace ready for several starts, each of which takes less time then: what depends on the trace
 * alone is made once, and a lazy start once for a link. Throws ERR_SIMULATE_PLAN, ERR_SIMULATE_LIMIT.
 */
export function prepareSimulation(trace: Trace): PreparedSimulation {
  return new PreparedSimulation(trace);
}

/** As `simulateColdStart`, with the same result. What the accesses meet with is added to an empty `log`. */
export function simulate(
  prepared: PreparedSimulation,
  options: SimulationOptions,
  log?: OutcomeLog,
): SimulationResult {
  const { link, policy = 'first-access' } = options;
  const facts = startFacts(prepared, policy, options);
  const { unitBytesMax, think, warmMs, setupMs, warmSetupMs, host, readAhead } = facts;
  const outcome = runStart(policy, facts, options, log);
  const { bytesPerSecond, roundTripMs, segmentBytes = 0 } = link;
  const lazyMs = prepared.lazyMs(
    [
      ...[bytesPerSecond, roundTripMs, segmentBytes, unitBytesMax, think, warmMs, readAhead],
      ...[setupMs, warmSetupMs, host.attachMs, host.requestMs, host.mibMs],
    ],
    () => (policy === 'none' ? outcome : runStart('none', facts, options)).predictedMs,
  );
  const boundMs = boundOf(facts, options);
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

function startFacts(
  prepared: PreparedSimulation,
  policy: SimulationPolicy,
  options: SimulationOptions,
): StartFacts {
  const { link, think = 1, readAhead = true, host = HOST_COST_NONE } = options;
  const { setupRoundTrips = SETUP_ROUND_TRIPS, warmSetupRoundTrips = 0 } = options;
  const unitBytesMax = unitBytesOf(policy, options.rangeBytes);
  const workload = prepared.workload(unitBytesMax);
  const { count, dueMs } = workload.accesses;
  const lastMs = count === 0 ? 0 : dueMs[count - 1];
  const warmMs = options.warmMs ?? lastMs * think;
  const setupMs = setupRoundTrips * link.roundTripMs;
  const warmSetupMs = Math.min(warmSetupRoundTrips, setupRoundTrips) * link.roundTripMs;
  return { workload, unitBytesMax, think, warmMs, setupMs, warmSetupMs, host, readAhead };
}

function runStart(
  policy: SimulationPolicy,
  { workload, think, warmMs, setupMs, warmSetupMs, host, readAhead }: StartFacts,
  { link, concurrency, rangeBytes, rangesPerRequest }: SimulationOptions,
  log?: OutcomeLog,
): ColdStartOutcome {
  const isLazy = policy === 'none';
  return new ColdStart({
    ...{ workload, link, policy, readAhead, think, warmMs, setupMs, warmSetupMs, host },
    concurrency: isLazy ? null : (concurrency ?? null),
    rangeBytes: isLazy ? null : (rangeBytes ?? null),
    rangesPerRequest: rangesPerRequest ?? registryLimits.requestRangesMax,
    refillBytes: rangeBytes ?? REFILL_BYTES,
    ...(log === undefined ? {} : { log }),
  }).run();
}

/** The bound over what the start needs before it ends. */
function boundOf(
  { workload: { plan }, warmMs, think, setupMs }: StartFacts,
  { link: { bytesPerSecond, roundTripMs } }: SimulationOptions,
): number {
  const dueUs = new Float64Array(plan.count);
  let count = 0;
  while (count < plan.count && plan.dueUs[count] * think <= warmMs * 1000) {
    dueUs[count] = plan.dueUs[count] * think;
    count += 1;
  }
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
