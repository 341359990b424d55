import type { Clock } from '../../base/clock.ts';
import { ReplaybdError } from '../../base/errors.ts';
import type { FetchEvent } from './fetch-stats.ts';
import type { Flight } from './flight-table.ts';
import type { RemoteBlob } from './remote-blob.ts';

/** A reason made once: one made for each request would cost a stack trace each. */
const IS_OVER = new Error('the request is over');

export interface FlightHooks {
  onFirstByte(latencyMs: number): void;
  onChunk(bytes: number): void;
  /** The flight's granules below `upTo` are present. */
  onLanded(upTo: number): void;
  /** The request is over; `error` is null when every byte arrived. */
  onEnd(event: FetchEvent): void;
}

/**
 * Sends a flight's request and stores what arrives. Never rejects. A source that sends nothing for
 * `stallMs`, sends too much or ignores an abort is given up without it: what it sends afterwards is
 * ignored.
 */
export async function runFlight(
  flight: Flight<RemoteBlob>,
  clock: Clock,
  stallMs: number,
  hooks: FlightHooks,
): Promise<void> {
  const { owner, lane, start, end } = flight;
  const range = { offset: start, length: end - start };
  const startedMs = clock.nowMs();
  const { signal } = flight.abort;
  const over = new AbortController();
  const writer = owner.cached.writer(range, hooks.onLanded);
  let firstByteMs: number | null = null;
  let chunks = 0;
  const onData = (chunk: Uint8Array): void => {
    if (over.signal.aborted || signal.aborted) return;
    chunks += 1;
    if (firstByteMs === null) {
      firstByteMs = clock.nowMs() - startedMs;
      hooks.onFirstByte(firstByteMs);
    }
    hooks.onChunk(chunk.length);
    try {
      writer.write(chunk);
    } catch (cause) {
      flight.abort.abort(cause);
    }
  };
  let error: unknown = null;
  try {
    const request = owner.source.fetch(start, end - start, { lane, signal, onData });
    void abortWhenStalled(flight, clock, stallMs, { over: over.signal, progress: () => chunks });
    await Promise.race([request, rejectOnAbort(signal, over.signal)]);
    signal.throwIfAborted();
    if (!writer.isComplete) throw shortError(owner.name, range.length, writer.storedEnd - start);
  } catch (cause) {
    error = cause;
  }
  over.abort(IS_OVER);
  hooks.onEnd({
    lane,
    digest: owner.digest,
    ...range,
    bytes: writer.storedEnd - start,
    firstByteMs,
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
  flight: Flight<RemoteBlob>,
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
    flight.abort.abort(
      new ReplaybdError(
        'ERR_FETCH_STALLED',
        `${flight.owner.name}: nothing arrived for ${stallMs} ms`,
      ),
    );
    return;
  }
}

function shortError(name: string, expected: number, found: number): ReplaybdError {
  return new ReplaybdError(
    'ERR_SOURCE_SHORT',
    `${name}: expected ${expected} bytes, found no more than ${found}`,
  );
}
