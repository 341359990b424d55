import { systemClock, type Clock } from '../../src/base/clock.ts';

/** Sleeps are over when the test says so. */
export class SleeplessClock implements Clock {
  /** Sleeps that are not over, oldest first. */
  readonly sleeping: { ms: number; wake: () => void }[] = [];
  #onSleep: () => void = () => undefined;

  nowMs(): number {
    return systemClock.nowMs();
  }

  wallMs(): number {
    return systemClock.wallMs();
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const entry = { ms, wake: resolve };
    const abort = (): void => reject(signal?.reason as Error);
    signal?.addEventListener('abort', abort);
    this.sleeping.push(entry);
    this.#onSleep();
    try {
      await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
      this.sleeping.splice(this.sleeping.indexOf(entry), 1);
    }
  }

  /** Resolves when somebody sleeps for so long. */
  async untilSleeps(ms: number): Promise<{ wake: () => void }> {
    for (;;) {
      const found = this.sleeping.find((entry) => entry.ms === ms);
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        this.#onSleep = resolve;
      });
    }
  }
}
