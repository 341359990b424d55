import { createHash, type Hash } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Clock, systemClock } from '../base/clock.ts';
import { ReplaybdError } from '../base/errors.ts';
import { readListLimits, SECTOR_BYTES } from '../base/limits.ts';
import type { BlockDevice } from '../device/block-device.ts';
import type { ListedRead } from './read-list.ts';

/** How long reads answered from local bytes may keep the thread to themselves. */
const HOLD_THREAD_MS_MAX = 1;

export interface PlayOptions {
  device: Pick<BlockDevice, 'virtualSizeBytes' | 'readCached' | 'read'>;
  reads: readonly ListedRead[];
  /** Reads in flight at once; 1 when absent. */
  concurrency?: number;
  /** Pause as the list says; without it the device is asked as fast as it answers. */
  think?: boolean;
  clock?: Clock;
  signal?: AbortSignal;
}

export interface PlayResult {
  totalMs: number;
  /** Microseconds from issuing a read to having its bytes. */
  latencyUs: { p50: number; p95: number; p99: number; max: number };
  reads: number;
  bytes: number;
  /** Reads answered from local bytes, without waiting. */
  hits: number;
  /** Hex SHA-256 of the data of all reads in the order of the list. */
  sha256: string;
}

/**
 * Plays a workload's reads against a device: issues them in the order of the list, at most
 * `concurrency` at once, and checks what comes back by one digest. Rejects with the first read
 * that fails, or with ERR_PLAY_RANGE before anything is read.
 */
export async function playReads(options: PlayOptions): Promise<PlayResult> {
  checkReads(options);
  return await new Player(options).run();
}

/**
 *   issued:   0 1 2 3 4 5 6 7 8          in list order
 *   state:    h h h . D . D D .          h hashed, D done and held, . in flight
 *                   ^ hashed
 *
 * A read is issued only while fewer than `concurrency` are in flight and fewer than twice as many
 * lie between `hashed` and the last one issued, so the bytes held stay bounded.
 */
class Player {
  readonly #device: PlayOptions['device'];
  readonly #reads: readonly ListedRead[];
  readonly #concurrency: number;
  readonly #think: boolean;
  readonly #clock: Clock;
  readonly #signal: AbortSignal | undefined;
  readonly #latencyUs: Float64Array;
  readonly #sha256: Hash = createHash('sha256');
  readonly #held = new Map<number, Uint8Array>();
  #hashed = 0;
  #inFlight = 0;
  #hits = 0;
  #failure: { error: unknown } | null = null;
  #wake: () => void = () => undefined;

  constructor(options: PlayOptions) {
    this.#device = options.device;
    this.#reads = options.reads;
    this.#concurrency = options.concurrency ?? 1;
    this.#think = options.think ?? false;
    this.#clock = options.clock ?? systemClock;
    this.#signal = options.signal;
    this.#latencyUs = new Float64Array(options.reads.length);
  }

  async run(): Promise<PlayResult> {
    const startedMs = this.#clock.nowMs();
    try {
      await this.#issueAll();
    } finally {
      await this.#waitUntil(() => this.#inFlight === 0);
    }
    if (this.#failure !== null) throw this.#failure.error;
    return {
      totalMs: this.#clock.nowMs() - startedMs,
      latencyUs: percentiles(this.#latencyUs),
      reads: this.#reads.length,
      bytes: this.#reads.reduce((sum, read) => sum + read.length, 0),
      hits: this.#hits,
      sha256: this.#sha256.digest('hex'),
    };
  }

  async #issueAll(): Promise<void> {
    let owedMs = 0;
    let turnMs = this.#clock.nowMs();
    for (const [index, read] of this.#reads.entries()) {
      await this.#waitUntil(() => this.#failure !== null || this.#hasRoom(index));
      if (this.#failure !== null) return;
      this.#signal?.throwIfAborted();
      if (this.#think) owedMs = await this.#pause(owedMs + read.thinkUs / 1000);
      if (this.#clock.nowMs() - turnMs > HOLD_THREAD_MS_MAX) {
        await nextTurn();
        turnMs = this.#clock.nowMs();
      }
      this.#issue(index, read);
    }
  }

  #hasRoom(index: number): boolean {
    return this.#inFlight < this.#concurrency && index - this.#hashed < 2 * this.#concurrency;
  }

  /** Timers are coarse: what a sleep is short or long of is settled with the next one. */
  async #pause(owedMs: number): Promise<number> {
    if (owedMs < 1) return owedMs;
    const startedMs = this.#clock.nowMs();
    await this.#clock.sleep(owedMs, this.#signal);
    return owedMs - (this.#clock.nowMs() - startedMs);
  }

  #issue(index: number, read: ListedRead): void {
    const first = read.offset - (read.offset % SECTOR_BYTES);
    const end = Math.ceil((read.offset + read.length) / SECTOR_BYTES) * SECTOR_BYTES;
    const sectors = Buffer.allocUnsafe(end - first);
    const wanted = sectors.subarray(read.offset - first, read.offset - first + read.length);
    const issuedMs = this.#clock.nowMs();
    if (this.#device.readCached(first, sectors)) {
      this.#hits += 1;
      this.#complete(index, issuedMs, wanted);
      return;
    }
    this.#inFlight += 1;
    this.#device
      .read(first, sectors, this.#signal)
      .then(
        () => this.#complete(index, issuedMs, wanted),
        (error: unknown) => {
          this.#failure ??= { error };
        },
      )
      .finally(() => {
        this.#inFlight -= 1;
        this.#wake();
      });
  }

  #complete(index: number, issuedMs: number, bytes: Uint8Array): void {
    this.#latencyUs[index] = (this.#clock.nowMs() - issuedMs) * 1000;
    this.#held.set(index, bytes);
    for (let next = this.#held.get(this.#hashed); next !== undefined;) {
      this.#sha256.update(next);
      this.#held.delete(this.#hashed);
      this.#hashed += 1;
      next = this.#held.get(this.#hashed);
    }
  }

  async #waitUntil(holds: () => boolean): Promise<void> {
    while (!holds()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

function checkReads({ device, reads, concurrency = 1 }: PlayOptions): void {
  const { concurrencyMax } = readListLimits;
  if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > concurrencyMax) {
    throw new ReplaybdError(
      'ERR_PLAY_CONCURRENCY',
      `play: expected a concurrency from 1 to ${concurrencyMax}, found ${concurrency}.`,
      { errno: 'EINVAL' },
    );
  }
  for (const [index, { offset, length }] of reads.entries()) {
    if (offset + length <= device.virtualSizeBytes) continue;
    throw new ReplaybdError(
      'ERR_PLAY_RANGE',
      `play: read ${index + 1} of the list: expected a range within the device's ` +
        `${device.virtualSizeBytes} bytes, found ${length} at ${offset}. Is it another image's list?`,
      { errno: 'EINVAL' },
    );
  }
}

/** Nearest rank; zeros when nothing was read. */
function percentiles(latencyUs: Float64Array): PlayResult['latencyUs'] {
  const sorted = latencyUs.toSorted();
  const rank = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? 0;
  return { p50: rank(0.5), p95: rank(0.95), p99: rank(0.99), max: rank(1) };
}
