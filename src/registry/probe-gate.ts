import type { Clock } from '../base/clock.ts';
import { registryLimits } from '../base/limits.ts';

/**
 * Lets one request find out what the others would otherwise each ask again (how a repository
 * authenticates, where a blob lives). The others wait for the probe's response head, and no longer
 * than `probeWaitMs`, so that a stalled probe cannot hold them.
 */
export class ProbeGate {
  readonly #clock: Clock;
  #probe: Promise<void> | null = null;
  #isKnown = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves to a function to call once the answer is in; it may be called more than once. */
  async enter(signal?: AbortSignal): Promise<(isKnown: boolean) => void> {
    const deadlineMs = this.#clock.nowMs() + registryLimits.probeWaitMs;
    while (!this.#isKnown && this.#probe !== null && this.#clock.nowMs() < deadlineMs) {
      const stop = new AbortController();
      const signals = signal === undefined ? stop.signal : AbortSignal.any([stop.signal, signal]);
      const timeLeft = this.#clock.sleep(deadlineMs - this.#clock.nowMs(), signals);
      timeLeft.catch(() => undefined);
      await Promise.race([this.#probe, timeLeft])
        .catch((error: unknown) => {
          signal?.throwIfAborted();
          throw error;
        })
        .finally(() => stop.abort());
    }
    if (this.#isKnown || this.#probe !== null) return () => undefined;
    return this.#begin();
  }

  /** What was found out no longer holds: the next one to enter probes again. */
  forget(): void {
    this.#isKnown = false;
  }

  #begin(): (isKnown: boolean) => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#probe = promise;
    return (isKnown) => {
      if (this.#probe !== promise) return;
      this.#probe = null;
      this.#isKnown = isKnown;
      resolve();
    };
  }
}
