import { fetchLimits, GRANULE_BYTES } from '../../base/limits.ts';

/** Rates that the filter looks back on. */
const RATES_MAX = 32;
/** A rate is measured over at least this long, and over at least one round trip. */
const SAMPLE_MS_MIN = 40;
const OPENING_SAMPLE_MS_MIN = 20;
/** A round trip counts for at least one and at most two of these. */
const ROUND_TRIP_EPOCH_MS = 5000;
/** Bytes under way, in units of bandwidth x round trip. */
const WINDOW_GAIN = 2;
/** A request's part of the window: what is left of it still fills the link. */
const REQUEST_SHARE = 1 / 4;
/** Beside the round trip: what either end may be busy with before it attends to the network. */
const PAUSE_MS = 5;
/**
 * A fresh connection brings little in its first round trips, and twice as much in each further one. So
 * requests begin small, on many connections, and grow with what was asked for: what is due first
 * does not wait for a connection that is still opening.
 */
const FRESH_SHARE = 1 / 16;
/** While the window opens, it grows by so many times what lands: it triples each round trip. */
const OPENING_GAIN = 2;
/** Until it is open, it stays below so many products of what was measured so far. */
const OPENING_PRODUCTS = 3;
/** It is open when so many samples in a row bring no more than before, */
const OPENING_SAMPLES = 3;
const GROWTH_MIN = 1.25;
/** or when what the link brings asks for less than this part of the window. */
const WIDE_SHARE = 0.2;
/** Now and then the window is widened, to see whether the link brings more. */
const PROBE_SAMPLES = 8;
const PROBE_GAIN = 1.25;

/**
 * How many prefetched bytes may be under way at once:
 *
 *   |<--- bandwidth x round trip --->|<--- the same again --->|<-- 5 ms -->|  window
 *
 * One product fills the link. The second keeps the estimate from feeding on itself: with less, a
 * client that is late to read measures a slower link, narrows the window, and makes it one.
 *
 * At first nothing is known: the window begins at a size that suits a middling link and grows with
 * every byte that lands, until samples show that the link and not the window is what limits. From
 * then on, as in BBR, the round trip is the least of recent seconds and the bandwidth the greatest of
 * recent samples. A sample during which nothing held the link back but a lack of requests can only
 * raise the window.
 */
export class Pacer {
  readonly #ratesPerMs: number[] = [];
  #bestPerMs = 0;
  #windowBytes: number = fetchLimits.windowBytesStart;
  #isOpening = true;
  /** Limited samples since the rate last grew, and all of them. */
  #flatSamples = 0;
  #limitedSamples = 0;
  #epochStartMs = -Infinity;
  #epochTripMs = Infinity;
  #lastEpochTripMs = Infinity;
  #sampleStartMs = 0;
  #sampleBytes = 0;
  #askedBytes = 0;
  #isSampling = false;
  #isLimited = false;

  get windowBytes(): number {
    return this.#windowBytes;
  }

  /** Least recent time to first byte; 0 before the first request. */
  get roundTripMs(): number {
    const leastMs = Math.min(this.#epochTripMs, this.#lastEpochTripMs);
    return leastMs === Infinity ? 0 : leastMs;
  }

  /** Greatest recent rate, both lanes together. */
  get bytesPerSecond(): number {
    return this.#bestPerMs * 1000;
  }

  /** Whether the rates so far may be those of the window rather than of the link. */
  get isOpening(): boolean {
    return this.#isOpening;
  }

  /** What the link brings in two round trips; Infinity before anything was measured. */
  get linkBytes(): number {
    if (this.#ratesPerMs.length === 0) return Infinity;
    return (2 * this.bytesPerSecond * this.roundTripMs) / 1000;
  }

  /** Large enough to be worth a request, small enough that the others keep the link busy. */
  get requestBytes(): number {
    const { prefetchRequestBytesMin, prefetchRequestBytesMax } = fetchLimits;
    const share = Math.min(this.#windowBytes * REQUEST_SHARE, this.#askedBytes * FRESH_SHARE);
    const bytes = Math.min(Math.max(share, prefetchRequestBytesMin), prefetchRequestBytesMax);
    return Math.floor(bytes / GRANULE_BYTES) * GRANULE_BYTES;
  }

  /** A prefetch left. */
  onAsked(bytes: number): void {
    this.#askedBytes += bytes;
  }

  /** The window is what keeps the next prefetch from leaving. */
  onLimited(): void {
    this.#isLimited = true;
  }

  onFirstByte(latencyMs: number, nowMs: number): void {
    if (nowMs - this.#epochStartMs >= ROUND_TRIP_EPOCH_MS) {
      this.#lastEpochTripMs = this.#epochTripMs;
      this.#epochTripMs = Infinity;
      this.#epochStartMs = nowMs;
    }
    this.#epochTripMs = Math.min(this.#epochTripMs, latencyMs);
  }

  onBytes(bytes: number, nowMs: number): void {
    if (this.#isOpening && this.#isLimited) this.#widen(OPENING_GAIN * bytes);
    if (!this.#isSampling) {
      this.#startSample(nowMs);
      return;
    }
    this.#sampleBytes += bytes;
    const elapsedMs = nowMs - this.#sampleStartMs;
    const sampleMsMin = this.#isOpening ? OPENING_SAMPLE_MS_MIN : SAMPLE_MS_MIN;
    if (elapsedMs < Math.max(sampleMsMin, this.roundTripMs)) return;
    this.#takeSample(this.#sampleBytes / elapsedMs);
    this.#startSample(nowMs);
  }

  /** Nothing is under way: the time until the next byte says nothing about the link. */
  onIdle(): void {
    this.#isSampling = false;
  }

  onThrottled(): void {
    this.#isOpening = false;
    this.#setWindow(this.#windowBytes / 2);
  }

  #startSample(nowMs: number): void {
    this.#isSampling = true;
    this.#sampleStartMs = nowMs;
    this.#sampleBytes = 0;
    this.#isLimited = false;
  }

  #takeSample(ratePerMs: number): void {
    const bestPerMs = this.bytesPerSecond / 1000;
    if (!this.#isLimited && ratePerMs < bestPerMs) return;
    this.#ratesPerMs.push(ratePerMs);
    if (this.#ratesPerMs.length > RATES_MAX) this.#ratesPerMs.shift();
    this.#bestPerMs = Math.max(...this.#ratesPerMs);
    const wantedMs = WINDOW_GAIN * this.roundTripMs + PAUSE_MS;
    const wantedBytes = (this.bytesPerSecond * wantedMs) / 1000;
    if (!this.#isLimited) {
      this.#setWindow(Math.max(wantedBytes, this.#windowBytes));
      return;
    }
    this.#limitedSamples += 1;
    const isFlat =
      ratePerMs < GROWTH_MIN * bestPerMs || wantedBytes < WIDE_SHARE * this.#windowBytes;
    this.#flatSamples = isFlat ? this.#flatSamples + 1 : 0;
    if (this.#flatSamples >= OPENING_SAMPLES) this.#isOpening = false;
    if (this.#isOpening) return;
    const isProbe = this.#limitedSamples % PROBE_SAMPLES === 0;
    this.#setWindow(isProbe ? wantedBytes * PROBE_GAIN : wantedBytes);
  }

  #widen(bytes: number): void {
    const product = (this.bytesPerSecond * this.roundTripMs) / 1000;
    const most = product === 0 ? Infinity : OPENING_PRODUCTS * product;
    this.#setWindow(Math.max(this.#windowBytes, Math.min(this.#windowBytes + bytes, most)));
  }

  #setWindow(bytes: number): void {
    const { windowBytesMin, windowBytesMax } = fetchLimits;
    this.#windowBytes = Math.round(Math.min(Math.max(bytes, windowBytesMin), windowBytesMax));
  }
}
