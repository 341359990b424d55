import type { TouchedBytes } from '../blob/blob.ts';
import { touchFeedLimits } from '../base/touch-feed-limits.ts';

/** Where a first touch found its bytes. */
export type TouchSource = keyof TouchedBytes;

/** Best first. */
const SOURCES: readonly TouchSource[] = ['cached', 'prefetched', 'late', 'demand'];

/** Since the attach in milliseconds; offset and length in bytes of the disk; the worst of its sources. */
export type Touch = readonly [timeMs: number, offset: number, length: number, source: TouchSource];

export interface TouchPage {
  /** What to ask for next: the number of touches since the attach. */
  readonly next: number;
  /** Of those that were asked for, touches that were forgotten meanwhile. */
  readonly lost: number;
  readonly touches: readonly Touch[];
}

/** The worst that a read's first touches met with; null when it touched nothing for the first time. */
export function worstSource(touched: TouchedBytes): TouchSource | null {
  return SOURCES.findLast((source) => touched[source] > 0) ?? null;
}

/**
 * A device's latest first touches, in the order in which they were accounted, for whoever draws a run
 * while it happens. The ring grows with what it is told, up to a bound: most devices touch little.
 */
export class TouchFeed {
  #capacity: number = touchFeedLimits.entriesMin;
  #times = new Float64Array(this.#capacity);
  #offsets = new Float64Array(this.#capacity);
  #lengths = new Float64Array(this.#capacity);
  #sources = new Uint8Array(this.#capacity);
  /** Touches ever told; touch `n` lies at `n` modulo the capacity. */
  #count = 0;

  add(timeUs: number, offset: number, length: number, touched: TouchedBytes): void {
    const source = worstSource(touched);
    if (source === null) return;
    if (this.#count === this.#capacity && this.#capacity < touchFeedLimits.entriesMax) this.#grow();
    const at = this.#count % this.#capacity;
    this.#times[at] = timeUs;
    this.#offsets[at] = offset;
    this.#lengths[at] = length;
    this.#sources[at] = SOURCES.indexOf(source);
    this.#count += 1;
  }

  /** The touches from number `since` on; all that there are when the feed has not come so far. */
  page(since: number): TouchPage {
    const wanted = since > this.#count ? 0 : since;
    const first = Math.max(wanted, this.#count - this.#capacity);
    const touches = Array.from({ length: this.#count - first }, (_, i): Touch => {
      const at = (first + i) % this.#capacity;
      const timeMs = Math.round(this.#times[at]) / 1000;
      return [timeMs, this.#offsets[at], this.#lengths[at], SOURCES[this.#sources[at]]];
    });
    return { next: this.#count, lost: first - wanted, touches };
  }

  /** Doubles a ring that is full and has not wrapped, so that all stays where it is. */
  #grow(): void {
    this.#capacity *= 2;
    const grown = <T extends Float64Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#times = grown(this.#times, new Float64Array(this.#capacity));
    this.#offsets = grown(this.#offsets, new Float64Array(this.#capacity));
    this.#lengths = grown(this.#lengths, new Float64Array(this.#capacity));
    this.#sources = grown(this.#sources, new Uint8Array(this.#capacity));
  }
}
