import { Option, type Command } from 'commander';
import { HOST_COST } from '../prefetch/simulate/host-cost.ts';
import { recordOutcomes, OutcomeLog, type RecordOutcomes } from '../prefetch/simulate/outcomes.ts';
import { prepareSimulation, simulate } from '../prefetch/simulate/simulate.ts';
import {
  SIMULATION_POLICIES,
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
 * A start on the link that flags name; null without one. Wrong usage where only half of a link is
 * named. Errors: those of `simulate`.
 */
export function simulatedStart(
  trace: Trace,
  { bandwidth: bytesPerSecond, rtt, policy }: LinkFlags,
  command: Command,
): SimulatedStart | null {
  if (bytesPerSecond === undefined && rtt === undefined) return null;
  if (bytesPerSecond === undefined || rtt === undefined) {
    return command.error('error: a link has both --bandwidth and --rtt');
  }
  const log = new OutcomeLog();
  const options = { link: { bytesPerSecond, roundTripMs: rtt }, policy, host: HOST_COST };
  const result = simulate(prepareSimulation(trace), options, log);
  return { result, outcomes: recordOutcomes(trace, log) };
}
