import { MessageChannel, receiveMessageOnPort, type MessagePort } from 'node:worker_threads';
import type { Clock } from '../../base/clock.ts';
import type { SharedDevice } from '../../device/block-device.ts';

/*
 * How a worker learns that the device has new maps, and the main thread that no worker uses old ones
 * any more. A worker that waits in the kernel takes no message, so the two meet in shared words:
 *
 *   word 0      generation: how often the maps have changed; written by the main thread
 *   word 1 + i  worker i: the generation it works with while it serves a request, IDLE while it waits
 *
 * A worker writes its word, then reads the generation; the main thread writes the generation, then
 * reads the words. So one of them notices: either the main thread sees the worker at work and waits
 * for it, or the worker sees the new generation and takes the new maps before it uses any.
 */
const GENERATION = 0;
const FIRST_WORKER = 1;
const IDLE = -1;
/** A worker never waits for anything while it serves, so it is done at once. */
const LOOK_AGAIN_MS = 1;

/** A worker's end, sent with its first message; `port` is transferred. */
export interface RemapLine {
  words: SharedArrayBuffer;
  slot: number;
  port: MessagePort;
}

/** The main thread's side. */
export class RemapAnnouncer {
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #ports: MessagePort[] = [];
  readonly #clock: Clock;

  constructor(workers: number, clock: Clock) {
    this.#words = new Int32Array(new SharedArrayBuffer((FIRST_WORKER + workers) * 4)).fill(IDLE);
    this.#words[GENERATION] = 0;
    this.#clock = clock;
  }

  /** A line for the next worker. */
  line(): RemapLine {
    const { port1, port2 } = new MessageChannel();
    this.#ports.push(port1);
    const slot = FIRST_WORKER + this.#ports.length - 1;
    return { words: this.#words.buffer, slot, port: port2 };
  }

  /** The worker of this line has ended, in whatever state. */
  ended({ slot }: Pick<RemapLine, 'slot'>): void {
    Atomics.store(this.#words, slot, IDLE);
  }

  /** Hands every worker the new maps; resolves when none of them uses older ones. */
  async announce(shared: SharedDevice): Promise<void> {
    for (const port of this.#ports) port.postMessage(shared);
    const generation = Atomics.add(this.#words, GENERATION, 1) + 1;
    while (this.#isAnyBehind(generation)) await this.#clock.sleep(LOOK_AGAIN_MS);
  }

  close(): void {
    for (const port of this.#ports) port.close();
  }

  #isAnyBehind(generation: number): boolean {
    return this.#ports.some((_, index) => {
      const used = Atomics.load(this.#words, FIRST_WORKER + index);
      return used !== IDLE && used < generation;
    });
  }
}

/** A worker's side: `enter` before it serves a request, `leave` before it waits for the next. */
export class RemapWatch {
  readonly #words: Int32Array;
  readonly #slot: number;
  readonly #port: MessagePort;
  #generation = 0;

  constructor({ words, slot, port }: RemapLine) {
    this.#words = new Int32Array(words);
    this.#slot = slot;
    this.#port = port;
  }

  /**
   * The newest maps when they have changed since the last request, else null. From now on older ones
   * must not be used.
   */
  enter(): SharedDevice | null {
    Atomics.store(this.#words, this.#slot, this.#generation);
    const newest = Atomics.load(this.#words, GENERATION);
    if (newest === this.#generation) return null;
    // They were sent before the generation was written. Even newer ones may be there: then the next
    // request finds a newer generation and nothing more to take.
    let shared: SharedDevice | null = null;
    for (let next = this.#take(); next !== null; next = this.#take()) shared = next;
    this.#generation = newest;
    Atomics.store(this.#words, this.#slot, newest);
    return shared;
  }

  leave(): void {
    Atomics.store(this.#words, this.#slot, IDLE);
  }

  #take(): SharedDevice | null {
    const received = receiveMessageOnPort(this.#port);
    return received === undefined ? null : (received.message as SharedDevice);
  }
}
