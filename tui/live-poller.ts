import { codeOf, messageOf } from '../src/base/errors.ts';
import type { TouchPage } from '../src/daemon/touch-feed.ts';
import type { DeviceSummary } from '../src/daemon/served-device.ts';
import type { LiveModel, LiveStats } from './model/live.ts';
import type { OpenedTrace } from './model/opened-trace.ts';

/** A device, and the socket of the process that serves it. */
export interface ServedDevice extends DeviceSummary {
  readonly socketPath: string;
}

/** Where the devices are asked for. */
export interface LiveSource {
  devices(): Promise<readonly ServedDevice[]>;
  stats(device: ServedDevice): Promise<LiveStats>;
  touches(device: ServedDevice, since: number): Promise<TouchPage>;
  /** The trace file that a device replays; rejects when this process cannot read it. */
  trace(path: string): Promise<OpenedTrace>;
}

/** Between two looks at all devices, and at the touches of the one that is watched. */
const STATS_MS = 1000;
const TOUCHES_MS = 100;
/** A large screen on a slow machine is drawn less often, so that it takes no more of a core. */
const CORE_SHARE_MAX = 0.125;
/** Devices whose counters are asked for: those that fit on a screen. */
const ASKED_MAX = 60;

/** Asks running processes for their devices as long as somebody looks. */
export class LivePoller {
  readonly #source: LiveSource;
  readonly #model: LiveModel;
  readonly #onChange: () => void;
  #timer: NodeJS.Timeout | null = null;
  #devices: readonly ServedDevice[] = [];
  #statsAtMs = -Infinity;
  #since = 0;
  #triedTrace = '';
  #cpuUs = 0;

  constructor(source: LiveSource, model: LiveModel, onChange: () => void) {
    this.#source = source;
    this.#model = model;
    this.#onChange = onChange;
  }

  /** Asks now and then from now on, or no more. */
  run(isLookedAt: boolean): void {
    if (isLookedAt === (this.#timer !== null)) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = isLookedAt ? setTimeout(() => void this.#turn(), 0) : null;
  }

  /** The device whose touches are asked for too. */
  watch(id: string | null): void {
    if (id === this.#model.watched) return;
    this.#model.watch(id);
    this.#since = 0;
    this.#triedTrace = '';
  }

  async #turn(): Promise<void> {
    if (await this.#look()) this.#onChange();
    if (this.#timer === null) return;
    const isWatching = this.#model.watched !== null && this.#model.state === 'up';
    const waitMs = isWatching ? Math.max(TOUCHES_MS, this.#spentMs() / CORE_SHARE_MAX) : STATS_MS;
    this.#timer = setTimeout(() => void this.#turn(), Math.min(waitMs, STATS_MS));
  }

  /** What this process took of a core since it was asked before: drawing, most of it. */
  #spentMs(): number {
    const { user, system } = process.cpuUsage();
    const beforeUs = this.#cpuUs;
    this.#cpuUs = user + system;
    return (this.#cpuUs - beforeUs) / 1000;
  }

  /** As `ask`; the model is told of what it throws. */
  async #look(): Promise<boolean> {
    try {
      return await this.ask();
    } catch (error) {
      this.#model.down(messageOf(error));
      return true;
    }
  }

  /** Asks once. False when nothing has changed. Errors: those of the source. */
  async ask(): Promise<boolean> {
    const nowMs = performance.now();
    const isDue = nowMs - this.#statsAtMs >= STATS_MS - TOUCHES_MS / 2;
    if (isDue) {
      this.#statsAtMs = nowMs;
      await this.#askAll();
    }
    return (await this.#askTouches()) || isDue;
  }

  async #askAll(): Promise<void> {
    this.#devices = await this.#source.devices();
    this.#model.list(this.#devices);
    for (const device of this.#devices.slice(0, ASKED_MAX)) {
      try {
        const stats = await this.#source.stats(device);
        this.#model.told(device.device, stats, performance.now());
      } catch (error) {
        // Detached, or not ready, since the list was made.
        if (!['ERR_DEVICE_UNKNOWN', 'ERR_DEVICE_STATE'].includes(codeOf(error))) throw error;
      }
    }
    await this.#expect();
  }

  /** What the watched device replays is drawn below what it reads. */
  async #expect(): Promise<void> {
    const { watched, expected } = this.#model;
    const stats = this.#model.devices.find(({ summary }) => summary.device === watched)?.stats;
    if (expected !== null || stats === undefined || stats === null) return;
    if (stats.replay === null || stats.trace === null) return;
    // What this process may not read, it may not read a second later either.
    if (this.#triedTrace === stats.trace.path) return;
    this.#triedTrace = stats.trace.path;
    const trace = await this.#source.trace(stats.trace.path).catch(() => null);
    if (trace === null || this.#model.watched !== watched) return;
    this.#model.expect(trace);
    this.#askAgain();
  }

  async #askTouches(): Promise<boolean> {
    const { watched } = this.#model;
    const device = this.#devices.find((one) => one.device === watched);
    if (device === undefined || device.state !== 'ready') return false;
    const page = await this.#source.touches(device, this.#since);
    if (page.next < this.#since) this.#askAgain();
    // What was asked for before somebody looked at another device is of no use.
    if (this.#model.watched !== watched) return false;
    this.#since = page.next;
    this.#model.touched(page.touches, page.lost);
    return page.touches.length > 0;
  }

  /** The device is another one, or is drawn over another trace. */
  #askAgain(): void {
    this.#model.forgetTouches();
    this.#since = 0;
  }
}
