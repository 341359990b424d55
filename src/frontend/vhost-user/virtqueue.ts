import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { messageOf } from '../../base/errors.ts';
import { vhostUserLimits } from './limits.ts';
import type { Logger } from '../../base/log.ts';
import { watchReadable, type FdWatch } from '../../../native/fd-watch.ts';
import { clearEvent, makeNonBlocking, raiseEvent } from '../../../native/shared-fd.ts';
import type { BlockRequests, LaterAnswer } from './block-requests.ts';
import { DescriptorChain } from './chain.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { InflightQueue } from './inflight.ts';
import type { OutstandingBytes } from './outstanding.ts';
import { SplitRing, type RingAddresses } from './split-ring.ts';
import type { Turns, TurnTaker } from './turns.ts';
import { ringError } from './vhost-error.ts';

/** What the front end has agreed on when a queue starts. */
export interface QueueTerms {
  memory: GuestMemory;
  hasEventIndex: boolean;
  allowsIndirect: boolean;
  inflight: InflightQueue | null;
}

export interface VirtqueueOptions {
  index: number;
  requests: BlockRequests;
  outstanding: OutstandingBytes;
  turns: Turns;
  log: Logger;
}

/** A queue while it runs. */
interface Running {
  ring: SplitRing;
  readonly hasEventIndex: boolean;
  readonly chain: DescriptorChain;
  readonly inflight: InflightQueue | null;
  /** Begun by an earlier back end and not answered: served first. */
  readonly resumed: number[];
  /** Heads of the answers that the guest has not been told of. */
  readonly answered: Uint16Array;
  answeredCount: number;
  /** Begun and not answered; each head is at most once in the guest's hands. */
  outstanding: number;
}

/** One virtqueue: takes requests from its ring, and tells answers, a batch at a time. */
export class Virtqueue implements TurnTaker {
  size = 0;
  addresses: RingAddresses | null = null;
  /** Where to go on in the available ring, unless requests have to be resumed. */
  base = 0;
  isEnabled = false;
  readonly #options: VirtqueueOptions;
  #kickFd: number | null = null;
  #callFd: number | null = null;
  #errorFd: number | null = null;
  #watch: FdWatch | null = null;
  #running: Running | null = null;
  /** No more requests are taken; those that were are answered. */
  #isStopping = false;
  #idle: (() => void)[] = [];

  constructor(options: VirtqueueOptions) {
    this.#options = options;
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** Takes the descriptor; null: no kicks come. Throws ERR_FD_WATCH. */
  setKick(fd: number | null): void {
    this.#dropKick();
    this.#kickFd = fd;
    if (fd === null) return;
    this.#watch = watchReadable(fd, () => {
      if (!clearEvent(fd)) this.#break('its kick descriptor is no event');
      else if (this.turn()) this.#options.turns.ask(this);
    });
  }

  /** Takes the descriptor; null: the guest polls. */
  setCall(fd: number | null): void {
    if (this.#callFd !== null) closeSync(this.#callFd);
    this.#callFd = fd;
    if (fd === null) return;
    makeNonBlocking(fd);
    // Answers that were told while nobody could be called.
    if (this.#running !== null) raiseEvent(fd);
  }

  setError(fd: number | null): void {
    if (this.#errorFd !== null) closeSync(this.#errorFd);
    this.#errorFd = fd;
    if (fd !== null) makeNonBlocking(fd);
  }

  /** Begins to serve. Throws ERR_VIRTQUEUE when the rings are not in the guest's memory. */
  start(terms: QueueTerms): void {
    assert(this.#running === null && this.addresses !== null);
    const { memory, inflight } = terms;
    const ring = new SplitRing(memory, this.addresses, this.size, terms.hasEventIndex);
    const resumed = inflight?.recover(ring.usedIndex) ?? [];
    // What was taken is what was answered and what is still to be.
    ring.availableIndex =
      inflight === null ? this.base : (ring.usedIndex + resumed.length) & 0xffff;
    this.#running = {
      ring,
      hasEventIndex: terms.hasEventIndex,
      chain: new DescriptorChain(memory, terms.allowsIndirect),
      inflight,
      resumed,
      answered: new Uint16Array(this.size),
      answeredCount: 0,
      outstanding: 0,
    };
    this.#isStopping = false;
    this.#options.turns.ask(this);
  }

  /** Resolves when every request that was taken is answered; takes no more. */
  async stop(): Promise<void> {
    await this.pause();
    const running = this.#running;
    if (running === null) return;
    this.base = running.ring.availableIndex;
    this.#running = null;
  }

  /** As `stop`, but the queue goes on by `resume` or `remap`. */
  async pause(): Promise<void> {
    this.#isStopping = true;
    if (this.#running !== null && this.#running.outstanding > 0) {
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    }
    if (this.#running !== null) this.#tell(this.#running);
  }

  resume(): void {
    this.#isStopping = false;
    this.#options.turns.ask(this);
  }

  /**
   * Goes on in memory that has changed. A queue whose rings are gone waits for the next change: front ends
   * take regions away and add them elsewhere.
   */
  remap(memory: GuestMemory): void {
    const running = this.#running;
    if (running === null || this.addresses === null) return;
    try {
      const ring = new SplitRing(memory, this.addresses, this.size, running.hasEventIndex);
      ring.continueFrom(running.ring);
      running.ring = ring;
      this.resume();
    } catch (error) {
      const { index, log } = this.#options;
      log.debug({ queue: index }, `vhost-user queue waits: ${messageOf(error)}`);
    }
  }

  /**
   * At once, when the front end is gone: nothing more is told. Resolves when the guest's memory is not
   * used any more.
   */
  async abandon(): Promise<void> {
    const running = this.#running;
    this.#running = null;
    this.close();
    if (running === null || running.outstanding === 0) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Closes the descriptors. */
  close(): void {
    this.#dropKick();
    this.setCall(null);
    this.setError(null);
  }

  turn(): boolean {
    const running = this.#running;
    if (running === null) return false;
    try {
      const hasMore = this.#takeSome(running);
      this.#tell(running);
      return hasMore;
    } catch (error) {
      // Answers that are complete are told; the guest has to reset what it broke.
      this.#tell(running);
      this.#break(messageOf(error));
      return false;
    }
  }

  /** True when it stopped for others' sake. */
  #takeSome(running: Running): boolean {
    const { ring } = running;
    // A queue that waits for its memory has a ring that is not there.
    if (this.#isStopping || !this.isEnabled) return false;
    ring.allowKicks(false);
    let allowed = false;
    for (let taken = 0; taken < vhostUserLimits.requestsPerTurn;) {
      if (this.#options.outstanding.isFull) {
        this.#options.outstanding.wait(this);
        return false;
      }
      const head = running.resumed.shift() ?? this.#takeNew(running);
      if (head >= 0) {
        this.#serve(running, head);
        taken += 1;
        allowed = false;
      } else if (allowed) {
        return false;
      } else {
        // Looks once more: what came before kicks were allowed makes none.
        ring.allowKicks(true);
        allowed = true;
      }
    }
    return true;
  }

  #takeNew({ ring, inflight }: Running): number {
    const head = ring.take();
    if (head >= 0) inflight?.begin(head);
    return head;
  }

  #serve(running: Running, head: number): void {
    const { ring, chain } = running;
    if (running.outstanding >= this.size) {
      throw ringError('available ring', `at most ${this.size} requests at once`, 'more');
    }
    chain.follow(ring.descriptors, head);
    const answer = this.#options.requests.serve(chain);
    if (typeof answer === 'number') this.#put(running, head, answer);
    else this.#await(running, head, answer);
  }

  #await(running: Running, head: number, { length, bytes }: LaterAnswer): void {
    const { outstanding, turns } = this.#options;
    running.outstanding += 1;
    outstanding.add(bytes);
    void length.then((answerBytes) => {
      running.outstanding -= 1;
      outstanding.remove(bytes);
      if (this.#running === running) {
        this.#put(running, head, answerBytes);
        turns.ask(this);
      }
      if (running.outstanding === 0) for (const resolve of this.#idle.splice(0)) resolve();
    });
  }

  #put(running: Running, head: number, length: number): void {
    running.ring.put(head, length);
    running.inflight?.answer(head);
    running.answered[running.answeredCount] = head;
    running.answeredCount += 1;
    if (running.answeredCount === this.size) this.#tell(running);
  }

  #tell(running: Running): void {
    if (running.answeredCount === 0) return;
    const isCalled = running.ring.tell();
    running.inflight?.settle(running.answered, running.answeredCount, running.ring.usedIndex);
    running.answeredCount = 0;
    if (isCalled && this.#callFd !== null) raiseEvent(this.#callFd);
  }

  /** Nothing is taken any more until the front end starts the queue anew. */
  #break(why: string): void {
    const { index, log } = this.#options;
    log.error({ queue: index }, `vhost-user queue ${index} stops: ${why}`);
    this.#isStopping = true;
    this.#dropKick();
    if (this.#errorFd !== null) raiseEvent(this.#errorFd);
  }

  #dropKick(): void {
    this.#watch?.close();
    this.#watch = null;
    if (this.#kickFd !== null) closeSync(this.#kickFd);
    this.#kickFd = null;
  }
}
