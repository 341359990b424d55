import { Worker, type WorkerOptions } from 'node:worker_threads';
import { threadLimits } from '../src/base/limits.ts';
import { askToEnd, stopWords, waitUntilStoppable } from './stop-guard.ts';

/**
 * A thread that loads libraries. Such a thread is never killed: what is terminated while koffi loads
 * or declares functions ends the whole process, because koffi takes the refusal of its next call into
 * V8 for a fatal error. So it is told to end, and ends by itself; and a process that ends, which stops
 * its threads just as `Worker.terminate` does, waits first until they are past that.
 *
 * The thread's module has a StopGuard, and ends when it receives null.
 */
export class NativeThread {
  readonly worker: Worker;
  readonly #words = stopWords();

  constructor(module: URL, options: Omit<WorkerOptions, 'workerData'>) {
    this.worker = new Worker(module, { ...options, workerData: { stopWords: this.#words } });
    running.add(this);
    this.worker.once('exit', () => running.delete(this));
  }

  /** Asks the thread to end, which it does once it is done with what it is at. */
  end(): void {
    askToEnd(this.#words);
    this.worker.postMessage(null);
  }

  /** For a process that ends: blocks until the thread may be stopped, at most until `deadlineMs`. */
  settle(deadlineMs: number): void {
    askToEnd(this.#words);
    waitUntilStoppable(this.#words, deadlineMs - performance.now());
  }
}

const running = new Set<NativeThread>();
process.on('exit', () => {
  const deadlineMs = performance.now() + threadLimits.exitMsMax;
  for (const thread of running) thread.settle(deadlineMs);
});
