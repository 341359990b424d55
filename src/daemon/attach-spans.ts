import { codeOf } from '../base/errors.ts';
import type { Clock } from '../base/clock.ts';
import type { FetchEvent } from '../blob/fetch/fetch-stats.ts';
import type { MissSource } from '../prefetch/quality.ts';
import { spanLimits } from './span-limits.ts';

export type SpanAttributes = Readonly<Record<string, string | number | boolean>>;

/** A stretch of time. Times are milliseconds since the Unix epoch, with a fraction. */
export interface Span {
  readonly name: string;
  readonly startMs: number;
  readonly endMs: number;
  readonly attributes: SpanAttributes;
  /** The code of the error that ended it; null when it ended well. */
  readonly failure: string | null;
}

/** Where spans go. Nothing of it throws, and nothing waits for it. */
export interface SpanSink {
  /** Begins the trace of one attach. */
  begin(name: string, startMs: number): OpenSpan;
}

/** A span that others lie below; they may end later than it does. */
export interface OpenSpan {
  child(span: Span): void;
  end(span: Omit<Span, 'name' | 'startMs'>): void;
}

/** What spans are made of; `nowUs` is the device's own clock, which began with the attach. */
interface SpanClock {
  readonly clock: Clock;
  nowUs(): number;
}

/**
 * The spans of one attach:
 *
 *   attach          |-------------------------------|
 *   manifest        |--------|                      | ready
 *   trace read               |--|                   |
 *   open layers                 |-------------------|
 *   first prefetch request      |-------|           |
 *   first read                                      |  |---|
 *   steady                                          |---------------------|  last demand miss or replay end
 *
 * Steady is told after some seconds without a demand miss, or when the device is closed. Without a sink
 * nothing is told; when the last demand miss was is known all the same.
 */
export class AttachSpans {
  readonly #root: OpenSpan | null;
  readonly #nowUs: () => number;
  readonly #originMs: number;
  /** The process's monotonic clock when the device's began. */
  readonly #originNowMs: number;
  #readyUs: number | null = null;
  #replayEndUs: number | null = null;
  #lastMissUs = 0;
  #demandMisses = 0;
  /** The first read, while it waits; later reads are no news. */
  #firstReadUs: number | null = null;
  #hasRead = false;
  #hasPrefetched = false;
  #isOver = false;

  constructor(sink: SpanSink | null, { clock, nowUs }: SpanClock) {
    this.#nowUs = nowUs;
    const sinceMs = nowUs() / 1000;
    this.#originMs = clock.wallMs() - sinceMs;
    this.#originNowMs = clock.nowMs() - sinceMs;
    this.#root = sink?.begin('attach', this.#originMs) ?? null;
  }

  /** From attaching until the last read of source 'demand' was answered; null without one. */
  get lastDemandMissSeconds(): number | null {
    return this.#demandMisses === 0 ? null : this.#lastMissUs / 1e6;
  }

  /** Times a step of opening. */
  async within<T>(
    name: string,
    work: () => Promise<T>,
    describe: (result: T) => SpanAttributes = () => ({}),
  ): Promise<T> {
    if (this.#root === null) return await work();
    const startUs = this.#nowUs();
    try {
      const result = await work();
      this.#child(name, startUs, this.#nowUs(), describe(result));
      return result;
    } catch (error) {
      this.#child(name, startUs, this.#nowUs(), {}, codeOf(error) || 'unknown');
      throw error;
    }
  }

  /** The device can serve reads. */
  ready(attributes: SpanAttributes, replay: { finished: Promise<unknown> } | null): void {
    this.#readyUs = this.#nowUs();
    this.#root?.end({ endMs: this.#atMs(this.#readyUs), attributes, failure: null });
    if (replay === null) this.#replayEndUs = this.#readyUs;
    else void replay.finished.then(() => (this.#replayEndUs = this.#nowUs()));
  }

  failed(error: unknown, attributes: SpanAttributes): void {
    const failure = codeOf(error) || 'unknown';
    this.#root?.end({ endMs: this.#atMs(this.#nowUs()), attributes, failure });
    this.#isOver = true;
  }

  /** A request for the device's blobs has ended. */
  onFetch({ lane, startedMs, durationMs, bytes, firstByteMs, error }: FetchEvent): void {
    if (this.#root === null || this.#hasPrefetched || lane !== 'prefetch') return;
    this.#hasPrefetched = true;
    const startUs = (startedMs - this.#originNowMs) * 1000;
    const attributes = { bytes, ...(firstByteMs === null ? {} : { first_byte_ms: firstByteMs }) };
    const failure = error === null ? null : codeOf(error) || 'unknown';
    const endUs = startUs + durationMs * 1000;
    this.#child('first prefetch request', startUs, endUs, attributes, failure);
  }

  /** A guest's read, at its time by the device's clock. */
  onRead(timeUs: number, hit: boolean): void {
    if (this.#hasRead || this.#root === null) return;
    this.#hasRead = true;
    if (hit) this.#child('first read', timeUs, timeUs, { source: 'local' });
    else this.#firstReadUs = timeUs;
  }

  /** A read that had to wait was answered. */
  onMissDone(source: MissSource): void {
    const nowUs = this.#nowUs();
    if (source === 'demand') {
      this.#lastMissUs = nowUs;
      this.#demandMisses += 1;
    }
    if (this.#firstReadUs === null) return;
    this.#child('first read', this.#firstReadUs, nowUs, { source });
    this.#firstReadUs = null;
  }

  /** Whether `tick` may still have something to tell. */
  get isOpen(): boolean {
    return this.#root !== null && !this.#isOver;
  }

  /** Tells of the steady state once it has been reached. To be called now and then. */
  tick(): void {
    if (this.#root === null || this.#isOver || this.#replayEndUs === null) return;
    const quietUs = this.#nowUs() - Math.max(this.#replayEndUs, this.#lastMissUs);
    if (quietUs >= spanLimits.steadyMs * 1000) this.close();
  }

  /** The device is closed: it gets no steadier. */
  close(): void {
    if (this.#root === null || this.#isOver || this.#readyUs === null) return;
    this.#isOver = true;
    const endUs = Math.max(this.#readyUs, this.#lastMissUs, this.#replayEndUs ?? this.#nowUs());
    this.#child('steady', this.#readyUs, endUs, { demand_misses: this.#demandMisses });
  }

  #child(
    name: string,
    startUs: number,
    endUs: number,
    attributes: SpanAttributes,
    failure: string | null = null,
  ): void {
    const [startMs, endMs] = [this.#atMs(startUs), this.#atMs(endUs)];
    this.#root?.child({ name, startMs, endMs, attributes, failure });
  }

  #atMs(timeUs: number): number {
    return this.#originMs + timeUs / 1000;
  }
}
