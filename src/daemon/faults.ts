import { AsyncLocalStorage } from 'node:async_hooks';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/** On whose behalf code runs. What outlives a device keeps this, and not the device. */
export interface FaultContext {
  /** Null once the device is gone. */
  onFault: ((error: unknown) => void) | null;
}

const contexts = new AsyncLocalStorage<FaultContext>();

/** Runs `work`: what it, its timers, promises and event handlers throw unseen is the context's. */
export function runFor<T>(context: FaultContext, work: () => T): T {
  return contexts.run(context, work);
}

/** Runs `work` on nobody's behalf: for what is shared, and started when the first one needs it. */
export function runForAll<T>(work: () => T): T {
  return contexts.exit(work);
}

/**
 * From now on an error that nobody catches fails the device on whose behalf the code ran, and no
 * other. One that belongs to no device goes to `onFatal`: nothing is known of what it has broken.
 * Returns what ends that.
 */
export function containFaults(log: Logger, onFatal: (error: unknown) => void): () => void {
  const take = (error: unknown): void => {
    const context = contexts.getStore();
    if (context === undefined) return onFatal(error);
    if (context.onFault !== null) return context.onFault(error);
    log.error({ err: error }, `after its device was gone: ${messageOf(error)}`);
  };
  process.on('uncaughtException', take);
  return () => void process.off('uncaughtException', take);
}
