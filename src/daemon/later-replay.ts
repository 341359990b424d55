import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import {
  noReplayCounters,
  type PackedCounters,
  type Replay,
  type ReplayCounters,
  type ReplayEnd,
} from '../prefetch/replay.ts';
import type { Trace } from '../trace/trace.ts';

const NOTHING: Readonly<ReplayCounters> = noReplayCounters();

/**
 * The replay of a trace that is still being made while the device serves reads. One that cannot be made
 * ends it as 'failed', with a warning; null is no trace, and nothing to replay.
 */
export class LaterReplay implements Replay {
  readonly finished: Promise<ReplayEnd>;
  readonly #abort = new AbortController();
  #replay: Replay | null = null;
  #end: ReplayEnd | null = null;

  constructor(
    make: (signal: AbortSignal) => Promise<Trace | null>,
    start: (trace: Trace) => Replay,
    log: Logger,
  ) {
    this.finished = this.#run(make, start, log).then((end) => {
      this.#end = end;
      return end;
    });
  }

  get counters(): Readonly<ReplayCounters> {
    return this.#replay?.counters ?? NOTHING;
  }

  get packed(): Readonly<PackedCounters> | null {
    return this.#replay?.packed ?? null;
  }

  get staleRatio(): number | null {
    return this.#replay?.staleRatio ?? null;
  }

  get end(): ReplayEnd | null {
    return this.#end;
  }

  cancel(): void {
    this.#abort.abort(new DOMException('the replay was cancelled', 'AbortError'));
    this.#replay?.cancel();
  }

  async #run(
    make: (signal: AbortSignal) => Promise<Trace | null>,
    start: (trace: Trace) => Replay,
    log: Logger,
  ): Promise<ReplayEnd> {
    const { signal } = this.#abort;
    try {
      const trace = await make(signal);
      if (signal.aborted) return 'cancelled';
      if (trace === null) return 'complete';
      this.#replay = start(trace);
      return await this.#replay.finished;
    } catch (error) {
      if (signal.aborted) return 'cancelled';
      log.warn({ error: messageOf(error) }, 'nothing is replayed');
      return 'failed';
    }
  }
}
