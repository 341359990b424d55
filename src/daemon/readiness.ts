import type { Clock } from '../base/clock.ts';
import { daemonLimits } from '../base/limits.ts';
import type { Logger } from '../base/log.ts';
import type { Daemon } from './daemon.ts';
import type { Notifier } from './notifier.ts';

export interface ReadinessOptions {
  readonly notifier: Pick<Notifier, 'starting' | 'ready'>;
  readonly clock: Clock;
  readonly log: Logger;
  /** The daemon is to end: nothing is told. */
  readonly signal: AbortSignal;
}

/**
 * Tells the service manager that the daemon is ready once the devices of the former daemon are attached
 * again or have failed, so that what is started after it finds its mounts. Devices that take too long
 * are attached while others start.
 */
export async function tellReady(
  { adopted, devices, socketPath }: Pick<Daemon, 'adopted' | 'devices' | 'socketPath'>,
  { notifier, clock, log, signal }: ReadinessOptions,
): Promise<void> {
  const { adoptMsMax, adoptMarginMs } = daemonLimits;
  notifier.starting('attaching devices again', adoptMsMax + adoptMarginMs);
  const timer = new AbortController();
  const late = clock.sleep(adoptMsMax, AbortSignal.any([signal, timer.signal])).then(
    () => true,
    () => false,
  );
  const isLate = await Promise.race([adopted.then(() => false), late]);
  timer.abort();
  if (signal.aborted) return;
  if (isLate) {
    const opening = devices.list().filter(({ state }) => state === 'opening');
    const ids = opening.map(({ id }) => id);
    log.warn({ devices: ids }, 'devices are still being attached: ready without them');
  }
  notifier.ready(`serving on ${socketPath}`);
}
