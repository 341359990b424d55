import { closeSync, writeSync } from 'node:fs';
import { makeNonBlocking } from '../../../native/shared-fd.ts';
import { vhostUserLimits } from './limits.ts';
import type { Logger } from '../../base/log.ts';
import { configOf, featuresOf, WRITEBACK_AT, type ServedDevice } from './block-config.ts';
import { BlockRequests } from './block-requests.ts';
import { GuestMemory } from './guest-memory.ts';
import { createInflight, InflightMemory } from './inflight.ts';
import {
  encodeBackendRequest,
  encodeConfig,
  encodeInflight,
  encodeU64,
  encodeVringState,
  parseConfig,
  parseInflight,
  parseMemoryRegion,
  parseMemoryTable,
  parseU64,
  parseVringAddress,
  parseVringState,
  type Message,
} from './message.ts';
import { OutstandingBytes } from './outstanding.ts';
import {
  backendRequest,
  feature,
  PROTOCOL_FEATURES,
  protocolFeature,
  request,
  VRING_INDEX_MASK,
  VRING_NO_FD,
} from './protocol.ts';
import { Turns } from './turns.ts';
import { Virtqueue } from './virtqueue.ts';
import { protocolError } from './vhost-error.ts';

export interface SessionOptions {
  device: ServedDevice;
  /** Queues that are offered. */
  queues: number;
  log: Logger;
}

/** What a front end gets to a message. */
export interface Reply {
  payload: Buffer;
  /** Goes with it; closed when it is sent. */
  fd?: number;
}

/** What one front end has set up: features, memory, queues. Messages come one after the other. */
export class Session {
  readonly #options: SessionOptions;
  readonly #memory = new GuestMemory();
  readonly #queues: Virtqueue[];
  readonly #gone = new AbortController();
  readonly #offered: bigint;
  #features = 0n;
  #protocolFeatures = 0n;
  #inflight: InflightMemory | null = null;
  #status = 0n;
  /** Where the front end listens to us; null when it does not. */
  #backendChannel: number | null = null;
  #closing: Promise<void> | null = null;
  /** As the guest set it. */
  #isWriteback = true;
  /**
   * The guest has flushed. Before that, nobody knows whether it set write-through when another process
   * was at this end.
   */
  #hasFlushed = false;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#offered = featuresOf(options.device);
    const turns = new Turns();
    const outstanding = new OutstandingBytes(turns);
    const { device, log } = options;
    const requests = new BlockRequests({
      device,
      log,
      isWriteback: () => this.#flushes && this.#isWriteback && this.#hasFlushed,
      onFlush: () => {
        this.#hasFlushed = true;
      },
      signal: this.#gone.signal,
    });
    this.#queues = Array.from({ length: options.queues }, (_, index) => {
      return new Virtqueue({ index, requests, outstanding, turns, log });
    });
  }

  /** A guest that knows no flush has its writes durable at once (virtio 1.2, 5.2.6.2). */
  get #flushes(): boolean {
    return (this.#features & feature.flush) !== 0n;
  }

  /**
   * Carries out a message; null when it has no reply of its own. Takes descriptors that it keeps out of
   * `message.fds`. Throws ERR_VHOST_PROTOCOL, ERR_VIRTQUEUE, ERR_FD_WATCH and the system's errors.
   */
  async handle(message: Message): Promise<Reply | null> {
    switch (message.request) {
      case request.getFeatures:
        return number(this.#offered);
      case request.getProtocolFeatures:
        return number(PROTOCOL_FEATURES);
      case request.getQueueCount:
        return number(this.#options.queues);
      case request.getMemorySlotsMax:
        return number(vhostUserLimits.memoryRegionsMax);
      case request.getStatus:
        return number(this.#status);
      case request.getConfig:
        return { payload: encodeConfig(message, parseConfig(message), this.#config) };
      case request.getInflight:
        return this.#getInflight(message);
      case request.getVringBase:
        return await this.#getVringBase(message);
      default:
        await this.#set(message);
        return null;
    }
  }

  /** True where the front end asked for it and may: a reply with 0 or not 0 to every message. */
  acknowledges({ needsReply }: Pick<Message, 'needsReply'>): boolean {
    return needsReply && (this.#protocolFeatures & protocolFeature.replyAck) !== 0n;
  }

  /** The front end can be told of a new configuration. */
  get canTell(): boolean {
    const { backendChannel, config } = protocolFeature;
    return (
      this.#backendChannel !== null &&
      (this.#protocolFeatures & backendChannel) !== 0n &&
      (this.#protocolFeatures & config) !== 0n
    );
  }

  /** Tells the front end that the configuration has changed, if it can be told. Throws an errno. */
  configChanged(): void {
    if (this.#backendChannel === null || !this.canTell) return;
    writeSync(this.#backendChannel, encodeBackendRequest(backendRequest.configChanged));
  }

  /** The front end is gone. Resolves when nothing of its memory is used any more. */
  async close(): Promise<void> {
    await (this.#closing ??= this.#close());
  }

  async #close(): Promise<void> {
    this.#gone.abort();
    await Promise.all(this.#queues.map((queue) => queue.abandon()));
    this.#memory.clear();
    this.#inflight?.close();
    this.#inflight = null;
    this.#setBackendChannel(null);
  }

  #setBackendChannel(fd: number | null): void {
    if (this.#backendChannel !== null) closeSync(this.#backendChannel);
    this.#backendChannel = fd;
  }

  /** Answers what was taken, for a front end that stays. */
  async drain(): Promise<void> {
    await Promise.all(this.#queues.map((queue) => queue.pause()));
  }

  async #set(message: Message): Promise<void> {
    switch (message.request) {
      case request.setOwner:
        return;
      case request.setFeatures:
        return this.#setFeatures(parseU64(message));
      case request.setProtocolFeatures:
        this.#protocolFeatures = subset('protocol features', parseU64(message), PROTOCOL_FEATURES);
        return;
      case request.setBackendChannel: {
        const fd = message.fds.length === 1 ? message.fds.shift() : undefined;
        if (fd === undefined) {
          throw protocolError('back-end channel', 'one descriptor', String(message.fds.length));
        }
        // A front end that does not read keeps nobody waiting.
        makeNonBlocking(fd);
        return this.#setBackendChannel(fd);
      }
      case request.setMemoryTable:
        return await this.#setMemory(message);
      case request.addMemoryRegion:
        return await this.#addRegion(message);
      case request.removeMemoryRegion:
        return await this.#whilePaused(() => this.#memory.remove(parseMemoryRegion(message)));
      case request.setConfig:
        return this.#setConfig(message);
      case request.setInflight:
        return this.#setInflight(message);
      case request.setStatus:
        return await this.#setStatus(parseU64(message));
      case request.resetOwner:
      case request.resetDevice:
        return await this.#reset();
      default:
        return await this.#setQueue(message);
    }
  }

  async #setQueue(message: Message): Promise<void> {
    switch (message.request) {
      case request.setVringNum: {
        const { index, value } = parseVringState(message);
        this.#stopped(index).size = ringSize(value);
        return;
      }
      case request.setVringBase: {
        const { index, value } = parseVringState(message);
        this.#stopped(index).base = value & 0xffff;
        return;
      }
      case request.setVringAddress: {
        const { index, ring } = parseVringAddress(message);
        this.#stopped(index).addresses = ring;
        return;
      }
      case request.setVringEnable: {
        const { index, value } = parseVringState(message);
        const queue = this.#queue(index);
        queue.isEnabled = value === 1;
        queue.resume();
        return;
      }
      case request.setVringKick:
        return this.#setKick(message);
      case request.setVringCall:
        return this.#queueOfFd(message).setCall(takeFd(message));
      case request.setVringError:
        return this.#queueOfFd(message).setError(takeFd(message));
      default:
        throw protocolError('message', 'a request that was offered', `number ${message.request}`);
    }
  }

  #setFeatures(features: bigint): void {
    if (this.#queues.some((queue) => queue.isRunning)) {
      // Logging for a migration may be turned on and off at any time; we do not offer it.
      if (features === this.#features) return;
      throw protocolError('features', 'no change while queues run', `0x${features.toString(16)}`);
    }
    this.#features = subset('features', features, this.#offered);
    // Without the bit, queues have no switch and are on as soon as they start.
    if ((features & feature.protocolFeatures) !== 0n) return;
    for (const queue of this.#queues) queue.isEnabled = true;
  }

  async #setMemory(message: Message): Promise<void> {
    const layouts = parseMemoryTable(message);
    await this.#whilePaused(() => {
      this.#memory.clear();
      layouts.forEach((layout, i) => this.#memory.add(layout, message.fds[i]));
    });
  }

  async #addRegion(message: Message): Promise<void> {
    const layout = parseMemoryRegion(message);
    if (message.fds.length !== 1) {
      throw protocolError('memory region', 'one descriptor', String(message.fds.length));
    }
    await this.#whilePaused(() => this.#memory.add(layout, message.fds[0]));
  }

  /** Memory may change while queues run, so they look for their rings again. */
  async #whilePaused(change: () => void): Promise<void> {
    await this.drain();
    try {
      change();
    } finally {
      for (const queue of this.#queues) queue.remap(this.#memory);
    }
  }

  #setKick(message: Message): void {
    const queue = this.#queueOfFd(message);
    const fd = takeFd(message);
    if (fd === null) {
      throw protocolError('kick', 'a descriptor: rings are not polled', 'none');
    }
    queue.setKick(fd);
    if (queue.isRunning) return queue.resume();
    if (queue.size === 0 || queue.addresses === null) {
      throw protocolError('kick', 'a queue with a size and addresses', 'one without');
    }
    queue.start({
      memory: this.#memory,
      hasEventIndex: (this.#features & feature.eventIndex) !== 0n,
      allowsIndirect: (this.#features & feature.indirectDescriptors) !== 0n,
      inflight: this.#inflight?.part(this.#queues.indexOf(queue), queue.size) ?? null,
    });
  }

  async #getVringBase(message: Message): Promise<Reply> {
    const { index } = parseVringState(message);
    const queue = this.#queue(index);
    await queue.stop();
    const value = queue.base;
    queue.setKick(null);
    return { payload: encodeVringState({ index, value }) };
  }

  get #config(): Buffer {
    return configOf(this.#options.device, this.#options.queues, this.#isWriteback);
  }

  /** The guest may choose between write-back and write-through, and nothing else. */
  #setConfig(message: Message): void {
    const { offset, data } = parseConfig(message);
    const isOffered = (this.#features & feature.configWriteback) !== 0n;
    if (!isOffered || offset !== WRITEBACK_AT || data.length !== 1 || data[0] > 1) {
      throw protocolError('configuration', 'a change of writeback', `${data.length} at ${offset}`);
    }
    this.#isWriteback = data[0] === 1;
  }

  #getInflight(message: Message): Reply {
    const asked = parseInflight(message);
    const { queues, queueSize } = asked;
    if (queues === 0 || queues > this.#options.queues) {
      throw protocolError('in-flight memory', `1 to ${this.#options.queues} queues`, `${queues}`);
    }
    const { fd, sizeBytes } = createInflight(queues, ringSize(queueSize));
    const layout = { sizeBytes, fileOffset: 0, queues, queueSize };
    return { payload: encodeInflight(layout, message.payload.length), fd };
  }

  #setInflight(message: Message): void {
    const layout = parseInflight(message);
    if (this.#queues.some((queue) => queue.isRunning)) {
      throw protocolError('in-flight memory', 'queues that are stopped', 'some that run');
    }
    if (message.fds.length !== 1 || layout.queues > vhostUserLimits.queuesMax) {
      throw protocolError('in-flight memory', 'one descriptor', String(message.fds.length));
    }
    ringSize(layout.queueSize);
    this.#inflight?.close();
    this.#inflight = null;
    this.#inflight = new InflightMemory(layout, message.fds[0]);
  }

  /** The guest's driver; 0 is a reset. */
  async #setStatus(status: bigint): Promise<void> {
    this.#status = status & 0xffn;
    if (this.#status === 0n) await this.#reset();
  }

  /** Calls stay where they are: front ends need not set them again. */
  async #reset(): Promise<void> {
    for (const queue of this.#queues) {
      await queue.stop();
      queue.setKick(null);
      queue.isEnabled = false;
      queue.base = 0;
    }
    this.#status = 0n;
    this.#isWriteback = true;
    this.#hasFlushed = false;
  }

  #queue(index: number): Virtqueue {
    const queue = this.#queues.at(index);
    if (queue !== undefined && index < this.#queues.length) return queue;
    throw protocolError('queue', `one of ${this.#queues.length}`, String(index));
  }

  #stopped(index: number): Virtqueue {
    const queue = this.#queue(index);
    if (!queue.isRunning) return queue;
    throw protocolError('queue', 'a change of a queue that is stopped', `queue ${index} running`);
  }

  #queueOfFd(message: Message): Virtqueue {
    return this.#queue(Number(parseU64(message) & BigInt(VRING_INDEX_MASK)));
  }
}

function number(value: bigint | number): Reply {
  return { payload: encodeU64(value) };
}

/** The descriptor of a kick, call or error message, from now on the caller's; null without one. */
function takeFd(message: Message): number | null {
  const hasFd = (parseU64(message) & BigInt(VRING_NO_FD)) === 0n;
  if (message.fds.length !== (hasFd ? 1 : 0)) {
    const expected = hasFd ? 'one descriptor' : 'no descriptor';
    throw protocolError('queue event', expected, String(message.fds.length));
  }
  return message.fds.shift() ?? null;
}

/** A split ring's size is a power of two. */
function ringSize(size: number): number {
  if (size > 0 && size <= vhostUserLimits.queueSizeMax && (size & (size - 1)) === 0) return size;
  const expected = `a power of two up to ${vhostUserLimits.queueSizeMax}`;
  throw protocolError('queue size', expected, String(size));
}

function subset(what: string, chosen: bigint, offered: bigint): bigint {
  if ((chosen & ~offered) === 0n) return chosen;
  const expected = `some of 0x${offered.toString(16)}`;
  throw protocolError(what, expected, `0x${chosen.toString(16)}`);
}

/** Closes what a message brought and nobody took. */
export function closeFds({ fds }: Pick<Message, 'fds'>): void {
  for (const fd of fds.splice(0)) closeSync(fd);
}
