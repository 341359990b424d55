import { ReplaybdError } from '../base/errors.ts';
import { daemonLimits } from '../base/limits.ts';
import type { TapBell } from '../device/block-device.ts';
import { runForAll } from './faults.ts';

/** How often what is due is done; one timer serves all devices. */
const TICK_MS = 20;

interface Worker {
  readonly work: (nowMs: number) => number;
  readonly onFault: (error: unknown) => void;
}

/** One device's place with the ticker. */
export interface Turn {
  /** Rung by threads that have something for the device. */
  readonly bell: TapBell;
  /**
   * Calls `work` within 20 ms, and again within 20 ms of when the bell is rung, `wake` is called or the
   * clock reaches the time that it returned last; until `end`, or until it throws: `onFault` is told,
   * and the others go on.
   */
  start(work: Worker['work'], onFault: Worker['onFault']): void;
  /** Something has changed that may be due earlier than the work said. */
  wake(): void;
  end(): void;
}

/**
 * Has devices looked after while something happens to them. What idle ones cost is a look at these two
 * columns, one behind the other in memory, where a look at each device's own rings would miss the
 * processor's caches several times:
 *
 *   bells   | 0 | 0 | 1 | 0 | ...    set by threads that read (device/tap.ts), cleared before the work
 *   due     | - | - | - | 7 | ...    milliseconds by the clock; Infinity: not before the bell
 *
 * A thread writes its entry before it looks at the bell, and the bell is cleared before entries are
 * looked for: one of the two sees the other.
 */
export class Ticker {
  readonly #nowMs: () => number;
  readonly #bells = new SharedArrayBuffer(4 * daemonLimits.turnsMax);
  readonly #rung = new Int32Array(this.#bells);
  readonly #due = new Float64Array(daemonLimits.turnsMax).fill(Infinity);
  readonly #workers: (Worker | null)[] = [];
  /** Given back; those beyond the workers' end are free too. */
  readonly #free: number[] = [];
  #working = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  /** A place for a device, whose work begins with `start`. Throws ERR_DEVICES_MAX. */
  reserve(): Turn {
    const index = this.#free.pop() ?? this.#workers.length;
    if (index >= daemonLimits.turnsMax) {
      throw new ReplaybdError('ERR_DEVICES_MAX', `${index} devices are open, and no more can be.`, {
        errno: 'EBUSY',
      });
    }
    this.#workers[index] = null;
    let isEnded = false;
    return {
      bell: { words: this.#bells, index },
      start: (work, onFault) => this.#start(index, { work, onFault }),
      wake: () => {
        if (!isEnded) this.#due[index] = -Infinity;
      },
      end: () => {
        if (isEnded) return;
        isEnded = true;
        this.#stop(index);
        this.#free.push(index);
      },
    };
  }

  /** Does what is due. A timer calls it while there is work; for tests, which have clocks of their own. */
  tick(): void {
    const nowMs = this.#nowMs();
    for (let index = 0; index < this.#workers.length; index += 1) {
      if (this.#due[index] > nowMs && Atomics.load(this.#rung, index) === 0) continue;
      const worker = this.#workers[index];
      if (worker !== null) this.#run(index, worker, nowMs);
    }
  }

  #run(index: number, { work, onFault }: Worker, nowMs: number): void {
    Atomics.store(this.#rung, index, 0);
    this.#due[index] = Infinity;
    try {
      const dueMs = work(nowMs);
      // The work itself may have woken it, or have ended the turn.
      if (this.#workers[index] !== null) this.#due[index] = Math.min(this.#due[index], dueMs);
    } catch (error) {
      this.#stop(index);
      onFault(error);
    }
  }

  #start(index: number, worker: Worker): void {
    this.#workers[index] = worker;
    this.#due[index] = -Infinity;
    this.#working += 1;
    this.#timer ??= runForAll(() => setInterval(() => this.tick(), TICK_MS));
  }

  #stop(index: number): void {
    this.#due[index] = Infinity;
    if (this.#workers[index] === null) return;
    this.#workers[index] = null;
    this.#working -= 1;
    if (this.#working > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
