import { fetchLimits, GRANULE_BYTES } from '../../base/limits.ts';
import { rangeEnd } from '../../base/range.ts';
import { SparseBitmap } from '../../base/sparse-bitmap.ts';
import { ReadAhead } from '../../blob/fetch/read-ahead.ts';
import type { Pacer } from '../../blob/fetch/pacer.ts';
import type { EventQueue } from './event-queue.ts';
import type { ConnectionPool } from './network.ts';
import type { BlobRange, UnitStates } from './unit-states.ts';

export interface DemandLaneOptions {
  readonly events: EventQueue;
  readonly pacer: Pacer;
  readonly states: UnitStates;
  readonly pool: ConnectionPool;
  /** Misses read ahead: nothing else will. */
  readonly readAhead: boolean;
  /** Told when requests begin and end to be under way. */
  readonly onChange: () => void;
}

/** What a guest waits for: requests leave at once, with what is worth reading ahead. */
export class DemandLane {
  readonly #options: DemandLaneOptions;
  /** By blob. */
  readonly #windows = new Map<number, ReadAhead>();
  /** Granules that were asked for, by blob: of the workload's units, and of bytes around them. */
  readonly #asked = new Map<number, SparseBitmap>();
  #waiting = 0;
  requests = 0;

  constructor(options: DemandLaneOptions) {
    this.#options = options;
  }

  /** Requests under way. */
  get waiting(): number {
    return this.#waiting;
  }

  /** The guest touched a unit that was read ahead. */
  onAheadUsed(blob: number, bytes: number): void {
    this.#window(blob).onUsed(bytes);
  }

  /** Fetches ranges of one blob, in order, that a read needs. */
  fetch(ranges: readonly BlobRange[]): void {
    const { readAhead } = this.#options;
    const [first] = ranges;
    const last = ranges[ranges.length - 1];
    if (!readAhead) {
      for (const range of ranges) this.#request(range, () => undefined);
      return;
    }
    const { blob, offset } = first;
    const end = rangeEnd(last);
    const wide = this.#window(blob).around(offset, end, this.#options.pacer.linkBytes);
    const wideEnd = Math.min(rangeEnd(wide), this.#blobSize(blob));
    for (const range of ranges) this.#ask(range);
    const [ahead] = wideEnd > end ? this.#ask({ blob, offset: end, length: wideEnd - end }) : [];
    let left = ranges.length;
    const onEnd = (): void => {
      left -= 1;
      if (left === 0 && wide.offset < offset) this.#fetchBehind(blob, wide.offset, offset);
    };
    for (const range of ranges) {
      const isLast = range === last && ahead?.offset === end;
      const aheadBytes = isLast ? ahead.length : 0;
      if (aheadBytes > 0) this.#window(blob).onIssued(aheadBytes);
      this.#request({ ...range, length: range.length + aheadBytes }, onEnd, rangeEnd(range));
    }
  }

  #fetchBehind(blob: number, start: number, end: number): void {
    for (const range of this.#ask({ blob, offset: start, length: end - start })) {
      this.#window(blob).onIssued(range.length);
      this.#request(range, () => undefined, range.offset);
    }
  }

  /** `aheadFrom`: units that begin there or behind it are read ahead. */
  #request(range: BlobRange, onEnd: () => void, aheadFrom = Infinity): void {
    const { events, pacer, states, pool } = this.#options;
    const { offset } = states.workload;
    const step = fetchLimits.demandRequestBytesMax;
    let left = Math.ceil(range.length / step);
    for (let at = range.offset; at < rangeEnd(range); at += step) {
      const part = { ...range, offset: at, length: Math.min(step, rangeEnd(range) - at) };
      const land = states.activate([part], 'demand', (unit) => offset[unit] >= aheadFrom);
      this.requests += 1;
      this.#waiting += 1;
      pool.request({
        bytes: part.length,
        onFirstByte: (latencyMs) => pacer.onFirstByte(latencyMs, events.nowMs),
        onBytes: (bytes) => {
          pacer.onBytes(bytes, events.nowMs);
          land(bytes);
        },
        onEnd: () => {
          this.#waiting -= 1;
          left -= 1;
          if (left === 0) onEnd();
          this.#options.onChange();
        },
      });
    }
    this.#options.onChange();
  }

  /** Notes a range as asked for; what of it was not yet, in order. */
  #ask(range: BlobRange): BlobRange[] {
    const { blob } = range;
    const first = Math.floor(range.offset / GRANULE_BYTES);
    const granules = Math.ceil(rangeEnd(range) / GRANULE_BYTES) - first;
    const fresh: BlobRange[] = [];
    this.#askedOf(blob).add(first, granules, (start, count) => {
      const offset = start * GRANULE_BYTES;
      const end = Math.min(offset + count * GRANULE_BYTES, this.#blobSize(blob));
      fresh.push({ blob, offset, length: end - offset });
    });
    return fresh;
  }

  #blobSize(blob: number): number {
    return this.#options.states.workload.blobSizes[blob];
  }

  #window(blob: number): ReadAhead {
    return getOrMake(this.#windows, blob, () => new ReadAhead());
  }

  #askedOf(blob: number): SparseBitmap {
    return getOrMake(this.#asked, blob, () => new SparseBitmap());
  }
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}
