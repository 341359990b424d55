import { fetchLimits, simulateLimits } from '../../base/limits.ts';
import { Pacer } from '../../blob/fetch/pacer.ts';
import { Curve } from './curve.ts';
import { DemandLane } from './demand-lane.ts';
import { EventLine, EventQueue } from './event-queue.ts';
import { FifoLanes } from './fifo-lanes.ts';
import { Guest } from './guest.ts';
import { Network } from './network.ts';
import type { OutcomeLog } from './outcomes.ts';
import { planOrder } from './plan-order.ts';
import { PrefetchLane } from './prefetch-lane.ts';
import type {
  HostCost,
  SimulatedLink,
  SimulationPoint,
  SimulationPolicy,
  SimulationResult,
} from './types.ts';
import { UnitStates, WANTED } from './unit-states.ts';
import type { Workload } from './workload.ts';

export interface ColdStartOptions {
  readonly workload: Workload;
  readonly link: SimulatedLink;
  readonly policy: SimulationPolicy;
  /** Null for what the policy has. */
  readonly concurrency: number | null;
  readonly rangeBytes: number | null;
  readonly rangesPerRequest: number;
  readonly refillBytes: number;
  readonly readAhead: boolean;
  readonly think: number;
  readonly warmMs: number;
  readonly setupMs: number;
  readonly warmSetupMs: number;
  readonly host: HostCost;
  /** Filled with what the guest's accesses meet with. */
  readonly log?: OutcomeLog;
}

/** What one simulated start comes to by itself. */
export type ColdStartOutcome = Omit<
  SimulationResult,
  'policy' | 'link' | 'lazyMs' | 'warmMs' | 'boundMs' | 'ratio' | 'gapClosure'
>;

/** Sockets that an attach opens while the manifest is under way, as daemon/open-image.ts does. */
const OPEN_CONNECTIONS = { demand: 2, prefetch: 32 } as const;
/** The original's `prefetchConfig.concurrency`. */
const FIFO_READERS = 16;

/** One cold start, from the attach to the end of the guest's start. */
export class ColdStart {
  readonly #options: ColdStartOptions;
  readonly #events = new EventQueue();
  readonly #pacer = new Pacer();
  readonly #network: Network;
  readonly #states: UnitStates;
  readonly #guest: Guest;
  readonly #demand: DemandLane;
  readonly #prefetch: PrefetchLane | null;
  readonly #fifo: FifoLanes | null;
  readonly #curve = new Curve(simulateLimits.curvePointsMax);
  /** Of metadata, units that are not there yet. */
  #toOpen: number;
  #openMs = 0;
  #endMs: number | null = null;

  constructor(options: ColdStartOptions) {
    const { workload, link, policy, concurrency, rangeBytes, think, warmMs, host } = options;
    this.#options = options;
    this.#toOpen = workload.metadataUnits;
    const [events, pacer] = [this.#events, this.#pacer];
    this.#network = new Network(events, link, {
      neededBytes: workload.bytes,
      onIdle: () => pacer.onIdle(),
      host,
      onBusy: (ms) => this.#guest.hold(ms),
    });
    const states = new UnitStates(workload, (unit) => this.#onPresent(unit));
    this.#states = states;
    const common = { events, pacer, states };
    const isFifo = policy === 'overlaybd-fifo';
    this.#demand = new DemandLane({
      ...common,
      pool: this.#network.pool(OPEN_CONNECTIONS.demand),
      readAhead: policy === 'none' && options.readAhead,
      onChange: () => this.#prefetch?.pump(),
    });
    this.#prefetch =
      isFifo || policy === 'none'
        ? null
        : new PrefetchLane({
            ...common,
            pool: this.#network.pool(OPEN_CONNECTIONS.prefetch),
            ranges: planOrder(workload, policy),
            concurrency: concurrency ?? fetchLimits.prefetchConcurrencyMax,
            rangeBytes,
            rangesPerRequest: options.rangesPerRequest,
            isPacked: policy === 'packed',
            isDemandWaiting: () => this.#demand.waiting > 0,
          });
    this.#fifo = isFifo
      ? new FifoLanes({
          ...common,
          pool: this.#network.pool(OPEN_CONNECTIONS.demand),
          ranges: planOrder(workload, policy),
          concurrency: concurrency ?? FIFO_READERS,
          refillBytes: options.refillBytes,
        })
      : null;
    this.#guest = new Guest({
      ...{ events, states, think, warmMs, log: options.log ?? null },
      demand: (firstUnit, endUnit) => this.#fetch(firstUnit, endUnit),
      onAheadUsed: (unit) => {
        this.#demand.onAheadUsed(workload.blob[unit], workload.length[unit]);
      },
      onStep: () => this.#offerPoint(),
      onEnd: () => {
        this.#endMs = events.nowMs;
      },
    });
  }

  run(): ColdStartOutcome {
    const setup = new EventLine<null>(this.#events, () => this.#open());
    setup.at(this.#options.setupMs + this.#options.host.attachMs, null);
    while (this.#endMs === null && this.#events.step());
    const { touchedBytes, stalls, stalledMs } = this.#guest;
    const last = this.#point();
    const fifo = this.#fifo?.requests ?? { demand: 0, prefetch: 0 };
    return {
      predictedMs: last.timeMs,
      coverage: last.coverage,
      timeliness: last.timeliness,
      touchedBytes,
      fetchedBytes: last.fetchedBytes,
      requests: {
        demand: this.#demand.requests + fifo.demand,
        prefetch: (this.#prefetch?.requests ?? 0) + fifo.prefetch,
      },
      ...{ stalls, stalledMs },
      openMs: this.#openMs,
      curve: this.#curve.finish(last),
    };
  }

  /** The replay's first requests leave before any layer is opened. */
  #open(): void {
    this.#prefetch?.pump();
    if (this.#toOpen === 0) this.#onOpened();
    else this.#fetch(0, this.#options.workload.metadataUnits);
  }

  #onOpened(): void {
    this.#openMs = this.#events.nowMs;
    this.#guest.start(this.#options.warmSetupMs);
    this.#fifo?.start();
  }

  #onPresent(unit: number): void {
    if (unit < this.#options.workload.metadataUnits) {
      this.#toOpen -= 1;
      if (this.#toOpen === 0) this.#onOpened();
    }
    this.#guest.onPresent(unit);
    this.#offerPoint();
  }

  /** What nobody has sent for yet, of some units next to each other in the plan. */
  #fetch(firstUnit: number, endUnit: number): void {
    const states = this.#states;
    const { blob, offset, length } = states.workload;
    for (let unit = firstUnit; unit < endUnit;) {
      const start = unit;
      let end = offset[unit] + length[unit];
      for (unit += 1; unit < endUnit; unit += 1) {
        if (blob[unit] !== blob[start] || offset[unit] !== end) break;
        end += length[unit];
      }
      const wanted = states.ranges(WANTED, blob[start], offset[start], end);
      if (wanted.length === 0) continue;
      if (this.#fifo !== null) for (const range of wanted) this.#fifo.demand(range);
      else this.#demand.fetch(wanted);
    }
  }

  #offerPoint(): void {
    if (this.#curve.wants(this.#events.nowMs)) this.#curve.add(this.#point());
  }

  #point(): SimulationPoint {
    const { prefetched, late } = this.#guest.touched;
    const { touchedBytes, stalledUntilNowMs } = this.#guest;
    const covered = prefetched + late;
    return {
      timeMs: this.#events.nowMs,
      fetchedBytes: this.#network.receivedBytes,
      touchedBytes,
      coverage: touchedBytes === 0 ? null : covered / touchedBytes,
      timeliness: covered === 0 ? null : prefetched / covered,
      stalledMs: stalledUntilNowMs,
    };
  }
}
