import type { Worker } from 'node:worker_threads';
import { siblingModule } from '../../base/package-root.ts';
import { BlockingThread } from '../../../native/blocking-thread.ts';
import { NativeThread } from '../../../native/native-thread.ts';

/**
 * The threads of a FUSE front end. Made before there is a device, they start up while the image is
 * still being opened; a front end that is given none starts its own.
 */
export class FuseThreads {
  /** For calls that wait for the device. */
  readonly blocking: BlockingThread = new BlockingThread();
  readonly #spare: NativeThread[];

  constructor(workers: number) {
    this.blocking.start();
    this.#spare = Array.from({ length: workers }, startWorker);
  }

  /** A worker that waits for its first message, FuseWorkerData. The caller sees it end. */
  takeWorker(): Worker {
    const { worker } = this.#spare.shift() ?? startWorker();
    worker.removeAllListeners('error');
    worker.ref();
    return worker;
  }

  /** Ends what was not taken. */
  close(): void {
    for (const thread of this.#spare.splice(0)) thread.end();
    this.blocking.close();
  }
}

function startWorker(): NativeThread {
  const thread = new NativeThread(siblingModule('fuse-worker', import.meta.url), {
    name: 'replaybd-fuse',
  });
  // It fails again when it is given something to do, and then somebody listens.
  thread.worker.on('error', () => undefined);
  thread.worker.unref();
  return thread;
}
