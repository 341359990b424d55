import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../src/base/errors.ts';
import type { PreparedSimulation } from '../src/prefetch/simulate/prepared.ts';
import { prepareSimulation, simulate } from '../src/prefetch/simulate/simulate.ts';
import type { SimulationOptions } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';

const traces = workerData as readonly Trace[];
/** By the index of their trace. */
const prepared = new Map<number, PreparedSimulation>();

/** A thread of its own, so that keys are heard while a cold start is simulated. */
parentPort?.on('message', ({ id, trace, options }: SimulationRequest) => {
  try {
    parentPort?.postMessage({ id, value: simulate(preparedOf(trace), options) });
  } catch (error) {
    parentPort?.postMessage({ id, why: messageOf(error) });
  }
});

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
}
