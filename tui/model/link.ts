import { HOST_COST } from '../../src/prefetch/simulate/host-cost.ts';
import type { SimulationOptions, SimulationPolicy } from '../../src/prefetch/simulate/types.ts';
import { SIMULATION_POLICIES } from '../../src/prefetch/simulate/types.ts';
import { bytes, counted } from '../paint/units.ts';

/** Where each slider stands: places in SLIDERS. */
export interface LinkChoice {
  readonly bandwidth: number;
  readonly roundTrip: number;
  readonly policy: number;
  readonly concurrency: number;
  readonly range: number;
}

export interface Slider {
  readonly key: keyof LinkChoice;
  readonly name: string;
  readonly labels: readonly string[];
}

const MBITS = [5, 10, 25, 50, 100, 200, 500, 1000, 2500, 10_000];
const ROUND_TRIPS_MS = [1, 2, 5, 10, 20, 35, 50, 100, 200, 300];
/** The first of each is what the policy has by itself. */
const CONCURRENCIES = [null, 1, 2, 4, 8, 16, 32, 64];
const RANGES_KIB = [null, 64, 128, 256, 512, 1024, 2048, 4096, 8192];

export const SLIDERS: readonly Slider[] = [
  { key: 'bandwidth', name: 'bandwidth', labels: MBITS.map((mbit) => `${mbit} Mbit/s`) },
  { key: 'roundTrip', name: 'round trip', labels: ROUND_TRIPS_MS.map((ms) => `${ms} ms`) },
  { key: 'policy', name: 'policy', labels: SIMULATION_POLICIES },
  {
    key: 'concurrency',
    name: 'concurrency',
    labels: CONCURRENCIES.map((count) =>
      count === null ? "the policy's" : counted(count, 'request'),
    ),
  },
  {
    key: 'range',
    name: 'range size',
    labels: RANGES_KIB.map((kib) => (kib === null ? "the policy's" : bytes(kib * 1024))),
  },
];

/** A link such as a machine and its registry in one region have. */
export const LINK_DEFAULT: LinkChoice = {
  bandwidth: MBITS.indexOf(100),
  roundTrip: ROUND_TRIPS_MS.indexOf(20),
  policy: 0,
  concurrency: 0,
  range: 0,
};

/** One step of a slider, if it has one more. */
export function slide(choice: LinkChoice, { key, labels }: Slider, by: number): LinkChoice {
  const place = Math.min(Math.max(0, choice[key] + by), labels.length - 1);
  return { ...choice, [key]: place };
}

export function simulationOf(choice: LinkChoice): SimulationOptions {
  const policy: SimulationPolicy = SIMULATION_POLICIES[choice.policy];
  const concurrency = CONCURRENCIES[choice.concurrency];
  const rangeKib = RANGES_KIB[choice.range];
  return {
    link: {
      bytesPerSecond: (MBITS[choice.bandwidth] * 1e6) / 8,
      roundTripMs: ROUND_TRIPS_MS[choice.roundTrip],
    },
    policy,
    host: HOST_COST,
    ...(concurrency === null ? {} : { concurrency }),
    ...(rangeKib === null ? {} : { rangeBytes: rangeKib * 1024 }),
  };
}

/** What is simulated, in words. */
export function replayName(choice: LinkChoice): string {
  const policy = SIMULATION_POLICIES[choice.policy];
  const names: Readonly<Partial<Record<SimulationPolicy, string>>> = {
    ...{ 'first-access': 'replay', none: 'lazy start' },
  };
  const name = names[policy] ?? `${policy} replay`;
  return `${name} on ${linkName(choice)}${requestsName(choice)}`;
}

/** The link in words, with what else differs from where the sliders begin. */
export function startName(choice: LinkChoice): string {
  const policy = choice.policy === 0 ? '' : `, ${SIMULATION_POLICIES[choice.policy]}`;
  return `${linkName(choice)}${policy}${requestsName(choice)}`;
}

/** How requests differ from those of the policy. */
function requestsName({ concurrency, range }: LinkChoice): string {
  const [, , , requests, ranges] = SLIDERS;
  const atOnce = concurrency === 0 ? '' : `, ${requests.labels[concurrency]}`;
  return range === 0 ? atOnce : `${atOnce}, ${ranges.labels[range]} each`;
}

/** The link in words. */
function linkName(choice: LinkChoice): string {
  const [bandwidth, roundTrip] = SLIDERS;
  return `${bandwidth.labels[choice.bandwidth]}, ${roundTrip.labels[choice.roundTrip]}`;
}
