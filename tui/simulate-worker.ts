import { parentPort, workerData } from 'node:worker_threads';
import { messageOf } from '../src/base/errors.ts';
import { simulateColdStart } from '../src/prefetch/simulate/simulate.ts';
import type { SimulationOptions } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';

const traces = workerData as readonly Trace[];

/** A thread of its own, so that keys are heard while a cold start is simulated. */
parentPort?.on('message', ({ id, trace, options }: SimulationRequest) => {
  try {
    parentPort?.postMessage({ id, value: simulateColdStart(traces[trace], options) });
  } catch (error) {
    parentPort?.postMessage({ id, why: messageOf(error) });
  }
});

export interface SimulationRequest {
  readonly id: string;
  /** Index of the trace among those that the thread was given. */
  readonly trace: number;
  readonly options: SimulationOptions;
}
