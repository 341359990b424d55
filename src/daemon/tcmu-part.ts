import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { tcmuLimits } from '../base/limits.ts';
import { HandlerLock } from '../frontend/tcmu/kernel/handler-lock.ts';
import { TcmuMonitor, type TcmuEvents } from '../frontend/tcmu/kernel/monitor.ts';
import type { DaemonContext, DaemonPart } from './daemon-parts.ts';
import { ORIGINAL_DAEMON } from './doctor/check-front-ends.ts';
import { systemView } from './doctor/system-view.ts';
import { SnapshotterDevices } from './snapshotter-devices.ts';

export interface TcmuPartOptions {
  /** Where the kernel shows itself, when it is not /sys. */
  root?: string;
  /** The kernel's events, when they are not netlink's. */
  openEvents?: () => TcmuEvents;
  /** Names of the programs that run. */
  processNames?: () => ReadonlySet<string>;
}

/** What is ended in reverse. */
interface Serving {
  lock: HandlerLock;
  monitor: TcmuMonitor;
  devices: SnapshotterDevices;
}

/**
 * Serves the TCMU devices that overlaybd's snapshotter makes, those that are there and those to come,
 * as overlaybd-tcmu does. Where that is not possible - the module is not loaded, another process
 * serves them, this one may not - the daemon goes on without, and it is looked again now and then.
 */
export function start(context: DaemonContext): DaemonPart {
  return startTcmuPart(context);
}

export function startTcmuPart(context: DaemonContext, options: TcmuPartOptions = {}): DaemonPart {
  const part = new TcmuPart(context, options);
  part.start();
  return part;
}

class TcmuPart implements DaemonPart {
  readonly #context: DaemonContext;
  readonly #options: TcmuPartOptions;
  readonly #stop = new AbortController();
  #serving: Serving | null = null;
  /** Why it does not serve, as it was last told. */
  #obstacle = '';

  constructor(context: DaemonContext, options: TcmuPartOptions) {
    this.#context = context;
    this.#options = options;
  }

  start(): void {
    if (!this.#begin()) void this.#lookAgain();
  }

  async close(): Promise<void> {
    this.#stop.abort();
    const serving = this.#serving;
    this.#serving = null;
    serving?.monitor.close();
    await serving?.devices.close();
    serving?.lock.release();
  }

  async #lookAgain(): Promise<void> {
    const { clock } = this.#context.runtime;
    const { signal } = this.#stop;
    for (;;) {
      await clock.sleep(tcmuLimits.lookAgainMs, signal).catch(() => undefined);
      if (signal.aborted || this.#begin()) return;
    }
  }

  /** False when it cannot be done now; each reason is told once. Never throws. */
  #begin(): boolean {
    try {
      this.#serving = this.#serve();
      if (this.#obstacle !== '') this.#context.log.info('TCMU devices are served from now on');
      return true;
    } catch (error) {
      const obstacle = messageOf(error);
      if (obstacle !== this.#obstacle) {
        this.#context.log.warn({ code: codeOf(error) }, `no TCMU devices are served: ${obstacle}`);
      }
      this.#obstacle = obstacle;
      return false;
    }
  }

  #serve(): Serving {
    const { root, openEvents, processNames = () => systemView.processNames() } = this.#options;
    const lock = HandlerLock.take(root);
    const devices = new SnapshotterDevices(this.#context);
    try {
      if (processNames().has(ORIGINAL_DAEMON)) throw originalRuns();
      const monitor = TcmuMonitor.start({
        handlers: devices,
        log: this.#context.log,
        ...(root === undefined ? {} : { root }),
        ...(openEvents === undefined ? {} : { events: openEvents() }),
      });
      return { lock, monitor, devices };
    } catch (error) {
      lock.release();
      throw error;
    }
  }
}

function originalRuns(): ReplaybdError {
  return new ReplaybdError(
    'ERR_TCMU_LOCKED',
    `${ORIGINAL_DAEMON} runs and serves them. End it (systemctl disable --now ${ORIGINAL_DAEMON}); ` +
      'its devices are taken over then.',
    { errno: 'EBUSY' },
  );
}
