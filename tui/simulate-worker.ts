import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../src/base/errors.ts';
import { OutcomeLog, recordOutcomes } from '../src/prefetch/simulate/outcomes.ts';
import type { PreparedSimulation } from '../src/prefetch/simulate/prepared.ts';
import { prepareSimulation, simulate } from '../src/prefetch/simulate/simulate.ts';
import type { SimulationOptions } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';
import type { Simulated } from './model/session.ts';

const traces = workerData as readonly Trace[];
/** By the index of their trace. */
const prepared = new Map<number, PreparedSimulation>();

/** A thread of its own, so that keys are heard while a cold start is simulated. */
parentPort?.on('message', (request: SimulationRequest) => {
  const { id } = request;
  try {
    parentPort?.postMessage({ id, value: simulated(request) });
  } catch (error) {
    parentPort?.postMessage({ id, why: messageOf(error) });
  }
});

function simulated({ trace, options, hasOutcomes }: SimulationRequest): Simulated {
  if (!hasOutcomes) return { result: simulate(preparedOf(trace), options), outcomes: null };
  const log = new OutcomeLog();
  const result = simulate(preparedOf(trace), options, log);
  return { result, outcomes: recordOutcomes(traces[trace], log) };
}

function preparedOf(trace: number): PreparedSimulation {
  const known = prepared.get(trace);
  if (known !== undefined) return known;
  const made = prepareSimulation(traces[trace]);
  prepared.set(trace, made);
  return made;
}

export interface SimulationRequest {
  readonly id: string;
  /** Index of the trace among those that the thread was given. */
  readonly trace: number;
  readonly options: SimulationOptions;
  /** Tell what each record meets with too. */
  readonly hasOutcomes: boolean;
}
