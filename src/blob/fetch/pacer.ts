import { fetchLimits } from '../../base/limits.ts';

/** Samples that the filters look back on. */
const SAMPLES_MAX = 32;
/** A rate is measured over at least this long, and over at least one round trip. */
const SAMPLE_MS_MIN = 20;
/** Bytes under way, in units of bandwidth x round trip: enough to keep the link busy. */
const WINDOW_GAIN = 2;

/**
 * How many prefetched bytes may be under way at once: about two bandwidth-delay products, so that
 * the link never idles and a demand read finds no more than one product queued before it.
 *
 * As in BBR, the round trip is the least and the bandwidth the greatest of recent samples. A
 * sample during which nothing held the link back but a lack of requests can only raise the window.
 */
export class Pacer {
  readonly #roundTripsMs: number[] = [];
  readonly #ratesPerMs: number[] = [];
  #windowBytes: number = fetchLimits.windowBytesStart;
  #sampleStartMs = 0;
  #sampleBytes = 0;
  #isSampling = false;
  #isLimited = false;

  get windowBytes(): number {
    return this.#windowBytes;
  }

  /** Least recent time to first byte; 0 before the first request. */
  get roundTripMs(): number {
    return this.#roundTripsMs.length === 0 ? 0 : Math.min(...this.#roundTripsMs);
  }

  /** Greatest recent rate, both lanes together. */
  get bytesPerSecond(): number {
    return this.#ratesPerMs.length === 0 ? 0 : Math.max(...this.#ratesPerMs) * 1000;
  }

  /** What the link brings in two round trips; Infinity before anything was measured. */
  get linkBytes(): number {
    if (this.#ratesPerMs.length === 0) return Infinity;
    return (WINDOW_GAIN * this.bytesPerSecond * this.roundTripMs) / 1000;
  }

  /** Large enough to be worth a request, small enough that several fill the window. */
  get requestBytes(): number {
    const eighth = Math.floor(this.#windowBytes / 8 / 4096) * 4096;
    const { prefetchRequestBytesMin, prefetchRequestBytesMax } = fetchLimits;
    return Math.min(Math.max(eighth, prefetchRequestBytesMin), prefetchRequestBytesMax);
  }

  /** The window is what keeps the next prefetch from leaving. */
  onLimited(): void {
    this.#isLimited = true;
  }

  onFirstByte(latencyMs: number): void {
    keep(this.#roundTripsMs, latencyMs);
  }

  onBytes(bytes: number, nowMs: number): void {
    if (!this.#isSampling) {
      this.#startSample(nowMs);
      return;
    }
    this.#sampleBytes += bytes;
    const elapsedMs = nowMs - this.#sampleStartMs;
    if (elapsedMs < Math.max(SAMPLE_MS_MIN, this.roundTripMs)) return;
    this.#takeSample(this.#sampleBytes / elapsedMs);
    this.#startSample(nowMs);
  }

  /** Nothing is under way: the time until the next byte says nothing about the link. */
  onIdle(): void {
    this.#isSampling = false;
  }

  onThrottled(): void {
    this.#setWindow(this.#windowBytes / 2);
  }

  #startSample(nowMs: number): void {
    this.#isSampling = true;
    this.#sampleStartMs = nowMs;
    this.#sampleBytes = 0;
    this.#isLimited = false;
  }

  #takeSample(ratePerMs: number): void {
    if (!this.#isLimited && ratePerMs * 1000 < this.bytesPerSecond) return;
    keep(this.#ratesPerMs, ratePerMs);
    this.#setWindow(this.#isLimited ? this.linkBytes : Math.max(this.linkBytes, this.#windowBytes));
  }

  #setWindow(bytes: number): void {
    const { windowBytesMin, windowBytesMax } = fetchLimits;
    this.#windowBytes = Math.round(Math.min(Math.max(bytes, windowBytesMin), windowBytesMax));
  }
}

function keep(samples: number[], sample: number): void {
  samples.push(sample);
  if (samples.length > SAMPLES_MAX) samples.shift();
}
