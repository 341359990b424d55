import { ReplaybdError, type ErrorCode } from '../src/base/errors.ts';
import { siblingModule } from '../src/base/package-root.ts';
import type { BlockingAnswer, BlockingCalls, BlockingRequest } from './blocking-worker.ts';
import { NativeThread } from './native-thread.ts';

type Settle = { resolve: (value: unknown) => void; reject: (error: Error) => void };

interface RunningThread {
  thread: NativeThread;
  /** Calls without an answer yet; answers come in the order of calls. */
  waiting: Settle[];
}

/**
 * Runs calls that may wait for this process's own answers - mounting a file system whose device we
 * serve, for one - one after the other on a thread of their own. Not the libuv pool: four such
 * calls at once would fill it, and the look-ups and file reads that answer them would never run.
 */
export class BlockingThread {
  #running: RunningThread | null = null;

  /** Rejects with a ReplaybdError: the call's own, or ERR_BLOCKING_THREAD when the thread died. */
  call<Name extends keyof BlockingCalls>(
    name: Name,
    ...args: Parameters<BlockingCalls[Name]>
  ): Promise<ReturnType<BlockingCalls[Name]>> {
    const { thread, waiting } = (this.#running ??= this.#start());
    return new Promise((resolve, reject) => {
      waiting.push({ resolve: resolve as (value: unknown) => void, reject });
      thread.worker.ref();
      thread.worker.postMessage({ name, args } satisfies BlockingRequest);
    });
  }

  /** Starts the thread before it is needed; otherwise the first call does. */
  start(): void {
    this.#running ??= this.#start();
  }

  /**
   * Ends the thread. It is not killed: it ends when the call that it is at does, and calls that wait
   * behind that one are rejected (ERR_BLOCKING_THREAD).
   */
  close(): void {
    this.#running?.thread.end();
    this.#running = null;
  }

  #start(): RunningThread {
    const thread = new NativeThread(siblingModule('blocking-worker', import.meta.url), {
      name: 'replaybd-blocking',
      // A loop device's descriptor outlives the thread that opened it.
      trackUnmanagedFds: false,
    });
    const { worker } = thread;
    const running: RunningThread = { thread, waiting: [] };
    worker.unref();
    worker.on('message', (answer: BlockingAnswer) => {
      const settle = running.waiting.shift();
      if (running.waiting.length === 0) worker.unref();
      if ('value' in answer) settle?.resolve(answer.value);
      else settle?.reject(new ReplaybdError(callCode(answer.code), answer.message));
    });
    worker.on('error', (error) => this.#fail(running, error));
    worker.on('exit', () => this.#fail(running, new Error('it has ended')));
    return running;
  }

  #fail(running: RunningThread, cause: Error): void {
    if (this.#running === running) this.#running = null;
    for (const { reject } of running.waiting.splice(0)) {
      reject(
        new ReplaybdError('ERR_BLOCKING_THREAD', `blocking thread: ${cause.message}`, { cause }),
      );
    }
  }
}

/** Node's own errors (EACCES, ...) get the prefix that ours have. */
function callCode(code: string): ErrorCode {
  return code.startsWith('ERR_') ? (code as ErrorCode) : `ERR_${code === '' ? 'CALL' : code}`;
}
