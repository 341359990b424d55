import { Worker } from 'node:worker_threads';
import { siblingModule } from '../src/base/package-root.ts';
import type { SimulationResult } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';
import { simulationOf, type LinkChoice } from './model/link.ts';
import type { Later } from './model/session.ts';
import type { SimulationRequest } from './simulate-worker.ts';

/** Results that are kept; a slider moved back shows them at once. */
const RESULTS_MAX = 200;

type Reply = { id: string } & ({ value: SimulationResult } | { why: string });

/**
 * Cold starts simulated on a thread, one at a time. Of those that wait only the latest is done: it is
 * what a slider that was moved quickly stands on.
 */
export class Simulations {
  readonly #traces: readonly Trace[];
  readonly #onChange: () => void;
  readonly #results = new Map<string, Later<SimulationResult>>();
  #worker: Worker | null = null;
  #running: string | null = null;
  #next: SimulationRequest | null = null;

  constructor(traces: readonly Trace[], onChange: () => void) {
    this.#traces = traces;
    this.#onChange = onChange;
  }

  result(trace: number, choice: LinkChoice): Later<SimulationResult> {
    const id = JSON.stringify([trace, choice]);
    const known = this.#results.get(id);
    if (known !== undefined) return known;
    if (this.#running !== id) {
      this.#next = { id, trace, options: simulationOf(choice) };
      if (this.#running === null) this.#start();
    }
    return { state: 'working' };
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #start(): void {
    if (this.#next === null) return;
    this.#worker ??= this.#open();
    this.#running = this.#next.id;
    // A report waits for it; a screen that is left does not.
    this.#worker.ref();
    this.#worker.postMessage(this.#next);
    this.#next = null;
  }

  #open(): Worker {
    const worker = new Worker(siblingModule('simulate-worker', import.meta.url), {
      workerData: this.#traces,
    });
    worker.on('message', (reply: Reply) => this.#told(reply));
    worker.on('error', (error) => {
      // A thread that ends takes what it was doing along; the next request starts another.
      if (this.#running !== null) this.#told({ id: this.#running, why: error.message });
      this.#worker = null;
    });
    return worker;
  }

  #told(reply: Reply): void {
    const result: Later<SimulationResult> =
      'value' in reply
        ? { state: 'done', value: reply.value }
        : { state: 'failed', why: reply.why };
    this.#results.set(reply.id, result);
    const [oldest] = this.#results.keys();
    if (this.#results.size > RESULTS_MAX) this.#results.delete(oldest);
    this.#running = null;
    this.#worker?.unref();
    this.#start();
    this.#onChange();
  }
}
