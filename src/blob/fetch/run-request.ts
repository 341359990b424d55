import assert from 'node:assert/strict';
import type { Clock } from '../../base/clock.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import type { Lane } from '../blob.ts';
import type { FetchEvent } from './fetch-stats.ts';
import type { Flight } from './flight-table.ts';
import type { RemoteBlob } from './remote-blob.ts';

/** A reason made once: one made for each request would cost a stack trace each. */
const IS_OVER = new Error('the request is over');

export interface RequestHooks {
  onFirstByte(latencyMs: number): void;
  onChunk(bytes: number): void;
  /** A flight's granules below `upTo` are present. */
  onLanded(flight: Flight<RemoteBlob>, upTo: number): void;
  /** The request is over; `error` is null when every byte arrived. */
  onEnd(event: FetchEvent): void;
}

/** How the bytes of a request's flights are asked for. */
export interface FlightRequest {
  /** URL without credentials, for messages. */
  readonly name: string;
  /** Of what is asked for. */
  readonly digest: string;
  readonly ranges: readonly ByteRange[];
  send(options: SendOptions): Promise<void>;
}

export interface SendOptions {
  readonly lane: Lane;
  readonly signal: AbortSignal;
  /** Takes the bytes of each flight in order; `index` is the flight's. */
  readonly onData: (chunk: Uint8Array, index?: number) => void;
}

/** Asks an owner's source for flights of it. */
export function ownRequest(flights: readonly Flight<RemoteBlob>[]): FlightRequest {
  const [{ owner }] = flights;
  const { name, digest, source } = owner;
  const ranges = flights.map(({ start, end }) => ({ offset: start, length: end - start }));
  const send = (options: SendOptions): Promise<void> => {
    const [first, ...others] = ranges;
    if (others.length === 0) return source.fetch(first.offset, first.length, options);
    assert(source.many !== undefined, `${name} answers one range a request`);
    return source.many.fetch(ranges, options);
  };
  return { name, digest, ranges, send };
}

/**
 * Sends one request for flights and stores what arrives. Never rejects. A source that
 * sends nothing for `stallMs`, sends too much or ignores an abort is given up without it: what it
 * sends afterwards is ignored.
 */
export async function runRequest(
  flights: readonly Flight<RemoteBlob>[],
  sent: FlightRequest,
  { clock, stallMs }: { clock: Clock; stallMs: number },
  hooks: RequestHooks,
): Promise<void> {
  const [{ lane }] = flights;
  const { name, digest } = sent;
  const abort = new AbortController();
  const ranges = flights.map(({ start, end }) => ({ offset: start, length: end - start }));
  const startedMs = clock.nowMs();
  const { signal } = abort;
  const over = new AbortController();
  const writers = flights.map((flight, index) => {
    flight.abort = abort;
    return flight.owner.cached.writer(ranges[index], (upTo) => hooks.onLanded(flight, upTo));
  });
  let firstByteMs: number | null = null;
  let chunks = 0;
  const onData = (chunk: Uint8Array, index = 0): void => {
    if (over.signal.aborted || signal.aborted) return;
    chunks += 1;
    if (firstByteMs === null) {
      firstByteMs = clock.nowMs() - startedMs;
      hooks.onFirstByte(firstByteMs);
    }
    hooks.onChunk(chunk.length);
    try {
      writers[index].write(chunk);
    } catch (cause) {
      abort.abort(cause);
    }
  };
  let error: unknown = null;
  try {
    const request = sent.send({ lane, signal, onData });
    const progress = (): number => chunks;
    void abortWhenStalled(abort, name, clock, stallMs, { over: over.signal, progress });
    await Promise.race([request, rejectOnAbort(signal, over.signal)]);
    signal.throwIfAborted();
    const short = writers.findIndex((writer) => !writer.isComplete);
    if (short >= 0) throw shortError(name, ranges[short], writers[short].storedEnd);
  } catch (cause) {
    error = cause;
  }
  over.abort(IS_OVER);
  const askedBytes = ranges.reduce((sum, { length }) => sum + length, 0);
  const missingBytes = ranges.reduce(
    (sum, range, index) => sum + rangeEnd(range) - writers[index].storedEnd,
    0,
  );
  hooks.onEnd({
    lane,
    digest,
    ranges: sent.ranges,
    askedBytes,
    bytes: askedBytes - missingBytes,
    firstByteMs,
    startedMs,
    durationMs: clock.nowMs() - startedMs,
    error,
  });
}

function rejectOnAbort(signal: AbortSignal, over: AbortSignal): Promise<never> {
  return new Promise((_resolve, reject) => {
    const onAbort = (): void => reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener('abort', onAbort, { signal: over });
  });
}

async function abortWhenStalled(
  abort: AbortController,
  name: string,
  clock: Clock,
  stallMs: number,
  { over, progress }: { over: AbortSignal; progress: () => number },
): Promise<void> {
  for (;;) {
    const seen = progress();
    try {
      await clock.sleep(stallMs, over);
    } catch {
      return;
    }
    if (over.aborted) return;
    if (progress() !== seen) continue;
    const message = `${name}: nothing arrived for ${stallMs} ms`;
    abort.abort(new ReplaybdError('ERR_FETCH_STALLED', message));
    return;
  }
}

function shortError(name: string, range: ByteRange, storedEnd: number): ReplaybdError {
  const found = storedEnd - range.offset;
  return new ReplaybdError(
    'ERR_SOURCE_SHORT',
    `${name}: expected ${range.length} bytes, found no more than ${found}`,
  );
}
