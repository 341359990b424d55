import { Option, type Command } from 'commander';
import { HOST_COST } from '../prefetch/simulate/host-cost.ts';
import { recordOutcomes, OutcomeLog, type RecordOutcomes } from '../prefetch/simulate/outcomes.ts';
import { prepareSimulation, simulate } from '../prefetch/simulate/simulate.ts';
import {
  SIMULATION_POLICIES,
  type SimulationOptions,
  type SimulationPolicy,
  type SimulationResult,
} from '../prefetch/simulate/types.ts';
import type { Trace } from '../trace/trace.ts';
import { bandwidth, milliseconds } from './arguments.ts';

export interface LinkFlags {
  bandwidth?: number;
  rtt?: number;
  policy: SimulationPolicy;
}

/** Options of commands that tell what records meet with in a simulated start. */
export function addLinkOptions(command: Command): Command {
  return command
    .option('--bandwidth <rate>', 'such as 100mbit: of the link of a simulated start', bandwidth)
    .option('--rtt <time>', 'round trip of that link, such as 20ms', milliseconds)
    .addOption(policyOption());
}

/** What is fetched ahead in a simulated start. */
export function policyOption(): Option {
  return new Option('--policy <policy>', 'what is fetched ahead, and in which order')
    .choices(SIMULATION_POLICIES)
    .default('first-access');
}

export interface SimulatedStart {
  readonly result: SimulationResult;
  readonly outcomes: RecordOutcomes;
}

/**
 * The start that flags ask for; null without a link. Wrong usage where only half of a link is named, or
 * what needs one without it.
 */
export function startOf(
  { bandwidth: bytesPerSecond, rtt, policy }: LinkFlags,
  command: Command,
): SimulationOptions | null {
  if (bytesPerSecond === undefined && rtt === undefined) {
    if (command.getOptionValueSource('policy') !== 'cli') return null;
    return command.error('error: --policy is of a simulated start: give --bandwidth and --rtt');
  }
  if (bytesPerSecond === undefined || rtt === undefined) {
    return command.error('error: a link has both --bandwidth and --rtt');
  }
  return { link: { bytesPerSecond, roundTripMs: rtt }, policy, host: HOST_COST };
}

/** Such a start of a trace, if there is one. Errors: those of `simulate`. */
export function simulatedStart(
  trace: Trace,
  options: SimulationOptions | null,
): SimulatedStart | null {
  if (options === null) return null;
  const log = new OutcomeLog();
  const result = simulate(prepareSimulation(trace), options, log);
  return { result, outcomes: recordOutcomes(trace, log) };
}
