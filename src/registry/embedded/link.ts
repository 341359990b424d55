/** How the simulated link between client and registry behaves. */
export interface LinkOptions {
  /** Added to every request before its first byte; default 0. */
  latencyMs?: number;
  /** Shared by all bodies; null or absent: as fast as the machine. */
  bytesPerSecond?: number | null;
}

/** One body on its way out. */
export interface Flow {
  /** Writes at most `bytes` of the body. 'blocked': `resume` or `end` will be called. */
  writeSlice(bytes: number): { written: number; state: 'more' | 'blocked' };
}

const SLICE_BYTES_MIN = 16 * 1024;
const SLICE_BYTES_MAX = 64 * 1024;
/** A slice is about what the link carries in this time. */
const SLICE_MS = 2;
/** Timers fire late; while bodies wait, the link may catch up by this much and no more. */
const CATCH_UP_MS = 50;
/** Slices written before other events get their turn. */
const SLICES_PER_TURN = 64;

/**
 * One link shared fairly by all bodies: they take turns, a slice each, and a single virtual clock
 * says when the link has carried what was written.
 *
 *   freeAt: |--slice A--|--slice B--|--slice A--|...      freeAt += bytes / rate
 *
 * A late timer does not lose throughput, for freeAt advances by what was sent and not by when it was
 * sent. An idle link earns no credit: the first body finds freeAt at the present.
 */
export class Link {
  #options: LinkOptions;
  /** Every body under way; those that could write now stand in `ready`. */
  readonly #flows = new Set<Flow>();
  #ready: Flow[] = [];
  #freeAtMs = 0;
  #timer: NodeJS.Timeout | NodeJS.Immediate | null = null;
  #isServing = false;

  constructor(options: LinkOptions) {
    this.#options = options;
  }

  /** Changes the link; bodies under way go on at the new rate. */
  set(options: LinkOptions): void {
    this.#options = options;
  }

  get latencyMs(): number {
    return this.#options.latencyMs ?? 0;
  }

  /** A body starts to take its turns. */
  begin(flow: Flow): void {
    if (this.#flows.size === 0) this.#freeAtMs = Math.max(this.#freeAtMs, performance.now());
    this.#flows.add(flow);
    this.resume(flow);
  }

  /** A blocked body can go on. */
  resume(flow: Flow): void {
    if (!this.#flows.has(flow)) return;
    this.#ready.push(flow);
    if (this.#timer === null && !this.#isServing) this.#run();
  }

  /** A body is done, or its client has gone. */
  end(flow: Flow): void {
    if (this.#flows.delete(flow)) this.#ready = this.#ready.filter((other) => other !== flow);
  }

  #run(): void {
    this.#timer = null;
    const rate = this.#options.bytesPerSecond ?? null;
    const nowMs = performance.now();
    this.#freeAtMs = Math.max(this.#freeAtMs, nowMs - CATCH_UP_MS);
    this.#isServing = true;
    for (let count = 0; count < SLICES_PER_TURN && this.#ready.length > 0; count += 1) {
      if (rate !== null && this.#freeAtMs > nowMs) break;
      this.#serveNext(rate);
    }
    this.#isServing = false;
    if (this.#ready.length === 0) return;
    const waitMs = rate === null ? 0 : this.#freeAtMs - nowMs;
    this.#timer =
      waitMs > 0
        ? setTimeout(() => this.#run(), Math.max(1, waitMs))
        : setImmediate(() => this.#run());
  }

  #serveNext(rate: number | null): void {
    const flow = this.#ready.shift();
    if (flow === undefined) return;
    const { written, state } = flow.writeSlice(sliceBytes(rate));
    if (rate !== null) this.#freeAtMs += (written * 1000) / rate;
    if (state === 'more' && this.#flows.has(flow)) this.#ready.push(flow);
  }
}

function sliceBytes(rate: number | null): number {
  if (rate === null) return SLICE_BYTES_MAX;
  const carried = Math.floor((rate * SLICE_MS) / 1000);
  return Math.min(Math.max(carried, SLICE_BYTES_MIN), SLICE_BYTES_MAX);
}
