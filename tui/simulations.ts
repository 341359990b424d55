import { Worker } from 'node:worker_threads';
import { siblingModule } from '../src/base/package-root.ts';
import type { RecordOutcomes } from '../src/prefetch/simulate/outcomes.ts';
import type { SimulationResult } from '../src/prefetch/simulate/types.ts';
import type { Trace } from '../src/trace/trace.ts';
import { simulationOf, type LinkChoice } from './model/link.ts';
import type { Later, Simulated } from './model/session.ts';
import type { SimulationRequest } from './simulate-worker.ts';

/** Results that are kept; a slider moved back shows them at once. */
const RESULTS_MAX = 200;
/** The same of outcomes, which have the size of a trace. */
const OUTCOMES_MAX = 10;

type Reply = { id: string } & ({ value: Simulated } | { why: string });

/**
 * Cold starts simulated on a thread, one at a time. Of those that wait only the latest is done: it is
 * what a slider that was moved quickly stands on.
 */
export class Simulations {
  readonly #traces: readonly Trace[];
  readonly #onChange: () => void;
  readonly #results = new Map<string, Later<SimulationResult>>();
  readonly #outcomes = new Map<string, RecordOutcomes>();
  #worker: Worker | null = null;
  #running: SimulationRequest | null = null;
  #next: SimulationRequest | null = null;

  constructor(traces: readonly Trace[], onChange: () => void) {
    this.#traces = traces;
    this.#onChange = onChange;
  }

  result(trace: number, choice: LinkChoice): Later<SimulationResult> {
    const id = idOf(trace, choice);
    const known = this.#results.get(id);
    if (known !== undefined) return known;
    this.#ask({ id, trace, options: simulationOf(choice), hasOutcomes: false });
    return { state: 'working' };
  }

  /** What the records meet with. */
  outcomes(trace: number, choice: LinkChoice): Later<RecordOutcomes> {
    const id = idOf(trace, choice);
    const value = this.#outcomes.get(id);
    if (value !== undefined) return { state: 'done', value };
    const result = this.#results.get(id);
    if (result?.state === 'failed') return result;
    this.#ask({ id, trace, options: simulationOf(choice), hasOutcomes: true });
    return { state: 'working' };
  }

  async close(): Promise<void> {
    await this.#worker?.terminate();
  }

  #ask(request: SimulationRequest): void {
    const running = this.#running;
    const isUnderWay = running?.id === request.id && (running.hasOutcomes || !request.hasOutcomes);
    if (isUnderWay) return;
    this.#next = request;
    if (running === null) this.#start();
  }

  #start(): void {
    if (this.#next === null) return;
    this.#worker ??= this.#open();
    this.#running = this.#next;
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
      if (this.#running !== null) this.#told({ id: this.#running.id, why: error.message });
      this.#worker = null;
    });
    return worker;
  }

  #told(reply: Reply): void {
    if ('value' in reply) {
      const { result, outcomes } = reply.value;
      keep(this.#results, RESULTS_MAX, reply.id, { state: 'done', value: result });
      if (outcomes !== null) keep(this.#outcomes, OUTCOMES_MAX, reply.id, outcomes);
    } else keep(this.#results, RESULTS_MAX, reply.id, { state: 'failed', why: reply.why });
    this.#running = null;
    this.#worker?.unref();
    this.#start();
    this.#onChange();
  }
}

function idOf(trace: number, choice: LinkChoice): string {
  return JSON.stringify([trace, choice]);
}

/** Adds to a map, and drops what has been in it for longest. */
function keep<T>(map: Map<string, T>, max: number, id: string, value: T): void {
  map.set(id, value);
  const [oldest] = map.keys();
  if (map.size > max) map.delete(oldest);
}
