import assert from 'node:assert/strict';
import type { ByteRange } from '../../base/range.ts';
import type { Lane } from '../blob.ts';

/** One fetch of one range of a blob, from when it is queued until its last byte arrived. */
export interface Flight<Owner = unknown> {
  readonly owner: Owner;
  readonly lane: Lane;
  /** Its bytes come out of a packed source instead of the blob's own. */
  readonly isPacked: boolean;
  /** What has not arrived yet: [start, end). Aligned to granules or the blob's end. */
  start: number;
  end: number;
  state: 'queued' | 'active' | 'done';
  /** Position in the plan: flights of the prefetch lane leave in this order. */
  readonly order: number;
  /** Whoever asked ahead of need is no longer interested. */
  readonly signal: AbortSignal | null;
  /** Ends its request, which may bring others too; null before there is one. */
  abort: AbortController | null;
}

/** A part of a range: under way in a flight, or asked for by nobody. */
export interface Piece<Owner> {
  start: number;
  end: number;
  flight: Flight<Owner> | null;
}

/** Why a flight ended before its last byte. */
export interface FlightFailure {
  error: unknown;
  lane: Lane;
  /** The blob's own source has not been asked. */
  isPacked: boolean;
}

interface Waiter {
  start: number;
  end: number;
  isSatisfied: () => boolean;
  settle: (failure: FlightFailure | null) => void;
}

/**
 * What is being fetched of one blob, by whomever. The flights are sorted and disjoint:
 *
 *   blob      |--present--|  flight 1  |-- --|  flight 2  |---- ... ----|
 *
 * so no granule is ever asked for twice at the same time. A flight shrinks from the front as its
 * granules arrive; those who wait for a range are woken as soon as nothing more of it is under way.
 */
export class FlightTable<Owner> {
  readonly #flights: Flight<Owner>[] = [];
  readonly #waiters = new Set<Waiter>();

  get size(): number {
    return this.#flights.length;
  }

  flightsOf(owner: Owner): Flight<Owner>[] {
    return this.#flights.filter((flight) => flight.owner === owner);
  }

  /** A queued flight and those of the same owner queued behind it, next in line first. */
  queueFrom(flight: Flight<Owner>): Flight<Owner>[] {
    return this.#flights
      .filter(
        (other) =>
          other.owner === flight.owner &&
          other.lane === flight.lane &&
          other.state === 'queued' &&
          other.order >= flight.order,
      )
      .sort((a, b) => a.order - b.order || a.start - b.start);
  }

  /** The flight that will bring the byte at `offset`. */
  at(offset: number): Flight<Owner> | null {
    const flight = this.#flights.at(this.#firstAfter(offset));
    return flight !== undefined && flight.start <= offset ? flight : null;
  }

  /** Cuts a range into pieces, in order. */
  pieces(range: ByteRange): Piece<Owner>[] {
    const pieces: Piece<Owner>[] = [];
    const rangeStop = range.offset + range.length;
    let position = range.offset;
    for (let index = this.#firstAfter(position); position < rangeStop; index += 1) {
      const flight = index < this.#flights.length ? this.#flights[index] : null;
      const flightStart = flight === null ? rangeStop : Math.min(flight.start, rangeStop);
      if (flightStart > position) {
        pieces.push({ start: position, end: flightStart, flight: null });
        position = flightStart;
      }
      if (flight === null || position === rangeStop) break;
      const end = Math.min(flight.end, rangeStop);
      pieces.push({ start: position, end, flight });
      position = end;
    }
    return pieces;
  }

  add(flight: Flight<Owner>): void {
    assert(flight.start < flight.end);
    const index = this.#firstAfter(flight.start);
    assert(index === this.#flights.length || flight.end <= this.#flights[index].start);
    this.#flights.splice(index, 0, flight);
  }

  /** The flight's bytes below `upTo` are present. */
  landed(flight: Flight<Owner>, upTo: number): void {
    const from = flight.start;
    assert(upTo > from && upTo <= flight.end);
    if (upTo === flight.end) this.#remove(flight);
    flight.start = upTo;
    this.#wake(from, upTo, null);
  }

  /**
   * Takes [start, end) out of a queued flight, for somebody who will fetch it now. What follows it
   * is returned as a flight of its own, for the caller to queue; the flight keeps what precedes.
   */
  carve(flight: Flight<Owner>, start: number, end: number): Flight<Owner> | null {
    assert(flight.state === 'queued' && flight.start <= start && end <= flight.end);
    const rest = end < flight.end ? this.split(flight, end) : null;
    if (start === flight.start) {
      this.#remove(flight);
      flight.state = 'done';
    } else {
      flight.end = start;
    }
    return rest;
  }

  /** Ends a queued flight at `at`; the rest is returned for the caller to queue. */
  split(flight: Flight<Owner>, at: number): Flight<Owner> {
    assert(flight.state === 'queued' && flight.start < at && at < flight.end);
    const rest = { ...flight, start: at };
    flight.end = at;
    this.add(rest);
    return rest;
  }

  /** Gives up what has not arrived, and tells those who wait for it. */
  fail(flight: Flight<Owner>, error: unknown): void {
    if (flight.state === 'done') return;
    flight.state = 'done';
    if (flight.start === flight.end) return;
    this.#remove(flight);
    const { lane, isPacked } = flight;
    this.#wake(flight.start, flight.end, { error, lane, isPacked });
  }

  /**
   * Resolves when `isSatisfied`, or when nothing of the range is under way any more; with the
   * failure when a flight over it fails first. Rejects with the signal's reason.
   */
  wait(
    range: ByteRange,
    isSatisfied: () => boolean,
    signal: AbortSignal,
  ): Promise<FlightFailure | null> {
    return new Promise((resolve, reject) => {
      const onAbort = (): void => {
        this.#waiters.delete(waiter);
        reject(signal.reason);
      };
      const waiter: Waiter = {
        start: range.offset,
        end: range.offset + range.length,
        isSatisfied,
        settle: (failure) => {
          this.#waiters.delete(waiter);
          signal.removeEventListener('abort', onAbort);
          resolve(failure);
        },
      };
      if (signal.aborted) {
        reject(signal.reason);
      } else if (isSatisfied() || !this.#covers(waiter.start, waiter.end)) {
        resolve(null);
      } else {
        signal.addEventListener('abort', onAbort);
        this.#waiters.add(waiter);
      }
    });
  }

  #wake(start: number, end: number, failure: FlightFailure | null): void {
    for (const waiter of this.#waiters) {
      if (waiter.end <= start || end <= waiter.start) continue;
      if (failure !== null || waiter.isSatisfied() || !this.#covers(waiter.start, waiter.end)) {
        waiter.settle(failure);
      }
    }
  }

  #covers(start: number, end: number): boolean {
    const flight = this.#flights.at(this.#firstAfter(start));
    return flight !== undefined && flight.start < end;
  }

  #remove(flight: Flight<Owner>): void {
    const index = this.#flights.indexOf(flight);
    assert(index >= 0);
    this.#flights.splice(index, 1);
  }

  /** Index of the first flight that ends after `offset`. */
  #firstAfter(offset: number): number {
    let low = 0;
    let high = this.#flights.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#flights[middle].end <= offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
