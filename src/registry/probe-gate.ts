import { abandonable } from '../base/abandonable.ts';
import type { Clock } from '../base/clock.ts';
import { registryLimits } from '../base/limits.ts';

interface Probe {
  /** Resolves when the probe has told, has ended, or takes too long. */
  readonly over: Promise<void>;
  isLate: boolean;
}

/**
 * Lets one request find out what the others would otherwise each ask again (how a repository
 * authenticates, where a blob lives). The others wait for the probe's response head, and no longer
 * than until it is `probeWaitMs` old, so that a stalled probe cannot hold them.
 */
export class ProbeGate {
  readonly #clock: Clock;
  #probe: Probe | null = null;
  #isKnown = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Resolves to a function to call once the answer is in; it may be called more than once. */
  async enter(signal?: AbortSignal): Promise<(isKnown: boolean) => void> {
    while (!this.#isKnown && this.#probe?.isLate === false) {
      await abandonable(this.#probe.over, signal);
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
    const probe: Probe = { over: promise, isLate: false };
    const answered = new AbortController();
    this.#probe = probe;
    this.#clock.sleep(registryLimits.probeWaitMs, answered.signal).then(
      () => {
        probe.isLate = true;
        resolve();
      },
      () => undefined,
    );
    return (isKnown) => {
      if (this.#probe !== probe) return;
      this.#probe = null;
      this.#isKnown = isKnown;
      answered.abort(ANSWERED);
      resolve();
    };
  }
}

/** A reason made once: one made for each probe would cost a stack trace each. */
const ANSWERED = new Error('the probe has answered');
