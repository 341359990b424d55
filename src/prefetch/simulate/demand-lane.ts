import { fetchLimits, GRANULE_BYTES } from '../../base/limits.ts';
import { rangeEnd } from '../../base/range.ts';
import { SparseBitmap } from '../../base/sparse-bitmap.ts';
import { ReadAhead } from '../../blob/fetch/read-ahead.ts';
import type { Pacer } from '../../blob/fetch/pacer.ts';
import type { EventQueue } from './event-queue.ts';
import type { ConnectionPool, Transfer } from './network.ts';
import type { BlobRange, Landing, UnitStates } from './unit-states.ts';

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
      for (const range of ranges) this.#request(range, ignore);
      return;
    }
    const { blob, offset } = first;
    const end = rangeEnd(last);
    const wide = this.#window(blob).around(offset, end, this.#options.pacer.linkBytes);
    const wideEnd = Math.min(rangeEnd(wide), this.#blobSize(blob));
    for (const range of ranges) this.#ask(range, ignore);
    let aheadBytes = 0;
    if (wideEnd > end) {
      this.#ask({ blob, offset: end, length: wideEnd - end }, (start, bytes) => {
        if (start === end) aheadBytes = bytes;
      });
    }
    let left = ranges.length;
    const onEnd = (): void => {
      left -= 1;
      if (left === 0 && wide.offset < offset) this.#fetchBehind(blob, wide.offset, offset);
    };
    for (const range of ranges) {
      if (range !== last || aheadBytes === 0) {
        this.#request(range, onEnd);
        continue;
      }
      this.#window(blob).onIssued(aheadBytes);
      this.#request({ ...range, length: range.length + aheadBytes }, onEnd, end);
    }
  }

  #fetchBehind(blob: number, start: number, end: number): void {
    this.#ask({ blob, offset: start, length: end - start }, (offset, length) => {
      this.#window(blob).onIssued(length);
      this.#request({ blob, offset, length }, ignore, offset);
    });
  }

  /** `aheadFrom`: units that begin there or behind it are read ahead. */
  #request(range: BlobRange, onEnd: () => void, aheadFrom = Infinity): void {
    const step = fetchLimits.demandRequestBytesMax;
    let left = Math.ceil(range.length / step);
    const onPartEnd = (): void => {
      this.#waiting -= 1;
      left -= 1;
      if (left === 0) onEnd();
      this.#options.onChange();
    };
    const { blob } = range;
    const end = rangeEnd(range);
    for (let offset = range.offset; offset < end; offset += step) {
      const length = Math.min(step, end - offset);
      this.requests += 1;
      this.#waiting += 1;
      const part = new DemandTransfer(this.#options, length, onPartEnd);
      part.activate({ blob, offset, length }, aheadFrom);
      this.#options.pool.request(part);
    }
    this.#options.onChange();
  }

  /** Notes a range as asked for; tells what of it was not yet, in order. */
  #ask(
    { blob, offset, length }: BlobRange,
    onFresh: (offset: number, bytes: number) => void,
  ): void {
    const first = Math.floor(offset / GRANULE_BYTES);
    const granules = Math.ceil((offset + length) / GRANULE_BYTES) - first;
    this.#askedOf(blob).add(first, granules, (start, count) => {
      const end = Math.min((start + count) * GRANULE_BYTES, this.#blobSize(blob));
      onFresh(start * GRANULE_BYTES, end - start * GRANULE_BYTES);
    });
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

/** One request. There are very many: its functions are made once. */
class DemandTransfer implements Transfer {
  readonly bytes: number;
  readonly onEnd: () => void;
  readonly #options: DemandLaneOptions;
  readonly #landing: Landing;

  constructor(options: DemandLaneOptions, bytes: number, onEnd: () => void) {
    this.#options = options;
    this.bytes = bytes;
    this.onEnd = onEnd;
    this.#landing = options.states.landing();
  }

  activate(range: BlobRange, aheadFrom: number): void {
    this.#options.states.activate(this.#landing, range, 'demand', aheadFrom);
  }

  onFirstByte(latencyMs: number): void {
    const { pacer, events } = this.#options;
    pacer.onFirstByte(latencyMs, events.nowMs);
  }

  onBytes(bytes: number): void {
    const { pacer, events, states } = this.#options;
    pacer.onBytes(bytes, events.nowMs);
    states.land(this.#landing, bytes);
  }
}

function ignore(): void {
  // Nothing waits for it.
}

function getOrMake<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  const found = map.get(key);
  if (found !== undefined) return found;
  const made = make();
  map.set(key, made);
  return made;
}
