import type { Clock } from '../../src/base/clock.ts';
import type { Lane, RangeSource } from '../../src/blob/blob.ts';

export interface LinkShape {
  bitsPerSecond: number;
  roundTripMs: number;
  /** The link takes turns between requests after this many bytes. */
  turnBytes: number;
}

interface Transfer {
  offset: number;
  remaining: number;
  signal: AbortSignal;
  onData: (chunk: Uint8Array) => void;
  resolve: () => void;
}

/** A server behind one link that all requests share, in the time of the given clock. */
export class SimulatedLink implements RangeSource {
  readonly name = 'https://registry.example/simulated';
  readonly #content: Uint8Array;
  readonly #clock: Clock;
  readonly #shape: LinkShape;
  readonly #transfers: Transfer[] = [];
  #isSending = false;
  /** Bytes that the server was asked for and has not sent, by lane. */
  readonly asked = { demand: 0, prefetch: 0 };
  requests = 0;

  constructor(content: Uint8Array, clock: Clock, shape: LinkShape) {
    this.#content = content;
    this.#clock = clock;
    this.#shape = shape;
  }

  size(): Promise<number> {
    return Promise.resolve(this.#content.length);
  }

  async fetch(
    offset: number,
    length: number,
    options: { lane: Lane; signal: AbortSignal; onData: (chunk: Uint8Array) => void },
  ): Promise<void> {
    const { signal, lane } = options;
    this.requests += 1;
    this.asked[lane] += length;
    const onData = (chunk: Uint8Array): void => {
      this.asked[lane] -= chunk.length;
      options.onData(chunk);
    };
    await this.#clock.sleep(this.#shape.roundTripMs / 2, signal);
    await new Promise<void>((resolve) => {
      this.#transfers.push({ offset, remaining: length, signal, onData, resolve });
      if (!this.#isSending) void this.#send();
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  async #send(): Promise<void> {
    this.#isSending = true;
    for (let next = this.#transfers.shift(); next !== undefined; next = this.#transfers.shift()) {
      const bytes = Math.min(next.remaining, this.#shape.turnBytes);
      await this.#clock.sleep((bytes * 8000) / this.#shape.bitsPerSecond);
      void this.#deliver(next, bytes, next.offset);
      next.offset += bytes;
      next.remaining -= bytes;
      if (next.remaining > 0 && !next.signal.aborted) this.#transfers.push(next);
    }
    this.#isSending = false;
  }

  async #deliver(transfer: Transfer, bytes: number, offset: number): Promise<void> {
    const isLast = transfer.remaining === bytes;
    await this.#clock.sleep(this.#shape.roundTripMs / 2);
    transfer.onData(this.#content.subarray(offset, offset + bytes));
    if (isLast) transfer.resolve();
  }
}
