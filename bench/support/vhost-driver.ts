import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import { nextReadable } from '../../src/frontend/vhost-user/readable.ts';
import { HEADER_BYTES, messageFlag, request } from '../../src/frontend/vhost-user/protocol.ts';
import { mapShared, type MemoryMap } from '../../native/memory-map.ts';
import { clearEvent, createEvent, createMemoryFile, raiseEvent } from '../../native/shared-fd.ts';
import { connectUnix, PassingMessage } from '../../native/unix-socket.ts';

/*
 * What a monitor and its guest's virtio driver do, in this process: a vhost-user front end with memory of its
 * own. Memory, from byte 0: for each queue its descriptors, available ring, used ring, indirect tables; then
 * data. The guest's addresses and the front end's differ from each other and from offsets.
 */
export const GUEST_BASE = 0x1_0000_0000;
export const USER_BASE = 0x7f00_0000_0000;
const QUEUE_BYTES = 128 * 1024;

export interface Piece {
  offset: number;
  length: number;
  writable: boolean;
}

export interface DriverOptions {
  queues?: number;
  queueSize?: number;
  eventIndex?: boolean;
  memoryBytes?: number;
  /** Of a driver that was here before: its memory, rings and in-flight memory go on. */
  resume?: VhostDriver;
  features?: bigint;
}

export interface DriverMessage {
  needsReply?: boolean;
  fds?: readonly number[];
}

const ALL_FEATURES = 0xffff_ffff_ffff_ffffn;
const EVENT_INDEX = 1n << 29n;

/** One connection to a back end. */
export class VhostDriver {
  readonly queueCount: number;
  readonly queueSize: number;
  readonly memoryFd: number;
  readonly memory: MemoryMap;
  readonly bytes: Buffer;
  readonly queues: DriverQueue[];
  features = 0n;
  inflight: { fd: number; payload: Buffer } | null = null;
  readonly #socket: number;
  readonly #passing = new PassingMessage();
  readonly #eventIndex: boolean;
  readonly #gone = new AbortController();

  private constructor(path: string, options: DriverOptions) {
    const { resume } = options;
    this.queueCount = options.queues ?? resume?.queueCount ?? 1;
    this.queueSize = options.queueSize ?? resume?.queueSize ?? 128;
    this.#eventIndex = options.eventIndex ?? resume?.hasEventIndex ?? true;
    const sizeBytes = options.memoryBytes ?? 8 * 1024 * 1024;
    this.memoryFd = resume?.memoryFd ?? createMemoryFile('guest', sizeBytes);
    this.memory = resume?.memory ?? mapShared(this.memoryFd, 0, sizeBytes, 'guest');
    this.bytes = Buffer.from(this.memory.bytes.buffer, this.memory.bytes.byteOffset, sizeBytes);
    this.inflight = resume?.inflight ?? null;
    this.#socket = connectUnix(path);
    this.queues = Array.from({ length: this.queueCount }, (_, i) => {
      return new DriverQueue(this, i, resume?.queues[i]);
    });
  }

  /** Connects and negotiates; `begin` then starts the queues. */
  static async connect(path: string, options: DriverOptions = {}): Promise<VhostDriver> {
    const driver = new VhostDriver(path, options);
    const mask = options.features ?? ALL_FEATURES;
    const offered = await driver.askNumber(request.getFeatures);
    driver.features = offered & mask & (driver.hasEventIndex ? ALL_FEATURES : ~EVENT_INDEX);
    const protocol = await driver.askNumber(request.getProtocolFeatures);
    await driver.tell(request.setProtocolFeatures, u64(protocol));
    await driver.tell(request.setOwner, Buffer.alloc(0));
    await driver.tell(request.setFeatures, u64(driver.features));
    return driver;
  }

  get hasEventIndex(): boolean {
    return this.#eventIndex;
  }

  get hasIndirect(): boolean {
    return (this.features & (1n << 28n)) !== 0n;
  }

  /** Start of the memory that requests may use. */
  get dataAt(): number {
    return this.queueCount * QUEUE_BYTES;
  }

  /** Hands over memory and starts all queues. */
  async begin(): Promise<this> {
    await this.tell(request.setMemoryTable, memoryTable(this.bytes.length), {
      fds: [this.memoryFd],
    });
    for (const queue of this.queues) await queue.start();
    return this;
  }

  /** Asks for in-flight memory, or gives back what there is. */
  async useInflight(): Promise<void> {
    if (this.inflight === null) {
      const asked = Buffer.alloc(20);
      asked.writeUInt16LE(this.queueCount, 16);
      asked.writeUInt16LE(this.queueSize, 18);
      const { payload, fds } = await this.ask(request.getInflight, asked);
      assert.equal(fds.length, 1);
      this.inflight = { fd: fds[0], payload };
    }
    await this.tell(request.setInflight, this.inflight.payload, { fds: [this.inflight.fd] });
  }

  /** Sends a message, whatever it is. */
  send(number: number, payload: Buffer, { needsReply, fds }: DriverMessage = {}): void {
    const header = Buffer.alloc(HEADER_BYTES);
    header.writeUInt32LE(number, 0);
    header.writeUInt32LE(1 | (needsReply === true ? messageFlag.needReply : 0), 4);
    header.writeUInt32LE(payload.length, 8);
    this.sendBytes(Buffer.concat([header, payload]), fds);
  }

  sendBytes(bytes: Buffer, fds?: readonly number[]): void {
    assert.equal(this.#passing.send(this.#socket, bytes, fds), bytes.length);
  }

  /** A message that has to be acknowledged with 0; without that where `reply_ack` is not yet on. */
  async tell(number: number, payload: Buffer, options: DriverMessage = {}): Promise<void> {
    assert.equal(await this.attempt(number, payload, options), 0n, `message ${number}`);
  }

  /** As `tell`; gives what was acknowledged. */
  async attempt(number: number, payload: Buffer, options: DriverMessage = {}): Promise<bigint> {
    const isEarly = number === request.setProtocolFeatures;
    this.send(number, payload, { ...options, needsReply: !isEarly });
    return isEarly ? 0n : (await this.#receive(number)).payload.readBigUInt64LE(0);
  }

  async ask(number: number, payload: Buffer = Buffer.alloc(0)): Promise<Received> {
    this.send(number, payload);
    return await this.#receive(number);
  }

  async askNumber(number: number): Promise<bigint> {
    return (await this.ask(number)).payload.readBigUInt64LE(0);
  }

  /** Resolves when the back end has closed the connection; drops what it still sends. */
  async dropped(): Promise<void> {
    const scratch = Buffer.alloc(4096);
    for (;;) {
      const received = this.#passing.receive(this.#socket, scratch);
      for (const fd of this.#passing.fds) closeSync(fd);
      if (received === 0) return;
      if (received === null) await nextReadable(this.#socket, this.#gone.signal);
    }
  }

  async #receive(number: number): Promise<Received> {
    const header = await this.#read(HEADER_BYTES);
    assert.equal(header.bytes.readUInt32LE(0), number);
    assert.equal(header.bytes.readUInt32LE(4) & 7, 1 | messageFlag.reply);
    const length = header.bytes.readUInt32LE(8);
    const payload = length === 0 ? Buffer.alloc(0) : (await this.#read(length)).bytes;
    return { payload, fds: header.fds };
  }

  async #read(length: number): Promise<{ bytes: Buffer; fds: number[] }> {
    const bytes = Buffer.alloc(length);
    const fds: number[] = [];
    for (let at = 0; at < length;) {
      let received: number | null;
      try {
        received = this.#passing.receive(this.#socket, bytes.subarray(at));
      } catch (error) {
        throw new Error('the back end has closed the connection', { cause: error });
      }
      if (received === 0) throw new Error('the back end has closed the connection');
      if (received === null) await nextReadable(this.#socket, this.#gone.signal);
      else fds.push(...this.#passing.fds);
      at += received ?? 0;
    }
    return { bytes, fds };
  }

  /** Goes without a word, as a monitor that is killed; its memory stays for who resumes. */
  leave(): void {
    this.#gone.abort();
    closeSync(this.#socket);
    for (const queue of this.queues) queue.close();
  }

  /** Gives the memory back as well. */
  close(): void {
    this.leave();
    this.memory.unmap();
    closeSync(this.memoryFd);
    if (this.inflight !== null) closeSync(this.inflight.fd);
  }
}

export interface Received {
  payload: Buffer;
  fds: number[];
}

interface Waiting {
  resolve: (length: number) => void;
  reject: (error: Error) => void;
}

/** A queue as a guest's driver has it. */
export class DriverQueue {
  readonly index: number;
  readonly kickFd = createEvent();
  readonly callFd = createEvent();
  readonly errorFd = createEvent();
  /** Kicks that the back end asked for, and calls that it made. */
  kicks = 0;
  calls = 0;
  readonly at: { descriptors: number; available: number; used: number; indirect: number };
  readonly #driver: VhostDriver;
  readonly #size: number;
  readonly #free: number[];
  readonly #waiting = new Map<number, Waiting>();
  /** Descriptors that each head's request has. */
  readonly #taken = new Map<number, number[]>();
  #availableIndex = 0;
  #usedIndex = 0;
  readonly #watched = new AbortController();
  #listening: Promise<void> | null = null;

  constructor(driver: VhostDriver, index: number, former?: DriverQueue) {
    this.#driver = driver;
    this.index = index;
    this.#size = driver.queueSize;
    const descriptors = index * QUEUE_BYTES;
    const available = descriptors + 16 * 1024;
    this.at = { descriptors, available, used: available + 4096, indirect: available + 16 * 1024 };
    this.#free = Array.from({ length: this.#size }, (_, i) => this.#size - 1 - i);
    if (former === undefined) return;
    this.#free = former.#free;
    this.#availableIndex = former.#availableIndex;
    this.#usedIndex = former.#usedIndex;
    this.#waiting = former.#waiting;
    this.#taken = former.#taken;
  }

  /** Requests without answer. */
  get pending(): number {
    return this.#waiting.size;
  }

  get usedIndex(): number {
    return this.#usedIndex;
  }

  async start(base = this.#usedIndex): Promise<void> {
    const { index } = this;
    await this.#driver.tell(request.setVringNum, pair(index, this.#size));
    await this.#driver.tell(request.setVringBase, pair(index, base));
    await this.#driver.tell(request.setVringAddress, this.addressPayload());
    await this.#driver.tell(request.setVringCall, u64(index), { fds: [this.callFd] });
    await this.#driver.tell(request.setVringError, u64(index), { fds: [this.errorFd] });
    await this.#driver.tell(request.setVringKick, u64(index), { fds: [this.kickFd] });
    await this.#driver.tell(request.setVringEnable, pair(index, 1));
    this.#listening ??= this.#listen(this.#watched.signal);
  }

  addressPayload(): Buffer {
    const payload = Buffer.alloc(40);
    payload.writeUInt32LE(this.index, 0);
    payload.writeBigUInt64LE(BigInt(USER_BASE + this.at.descriptors), 8);
    payload.writeBigUInt64LE(BigInt(USER_BASE + this.at.used), 16);
    payload.writeBigUInt64LE(BigInt(USER_BASE + this.at.available), 24);
    return payload;
  }

  /** Stops the queue; gives the index that the back end goes on with. */
  async stop(): Promise<number> {
    const { payload } = await this.#driver.ask(request.getVringBase, pair(this.index, 0));
    this.reap();
    return payload.readUInt32LE(4);
  }

  /** Adds a request and kicks if that is asked for; resolves to the length of the answer. */
  submit(pieces: readonly Piece[], isIndirect = false): Promise<number> {
    const head = this.#fill(pieces, isIndirect);
    const answered = new Promise<number>((resolve, reject) => {
      this.#waiting.set(head, { resolve, reject });
    });
    this.offer(head);
    return answered;
  }

  /** Puts a head into the available ring, whatever it is, and kicks if that is asked for. */
  offer(head: number): void {
    const { bytes } = this.#driver;
    const { available, used } = this.at;
    const before = this.#availableIndex;
    bytes.writeUInt16LE(head, available + 4 + (before % this.#size) * 2);
    this.#availableIndex = (before + 1) & 0xffff;
    bytes.writeUInt16LE(this.#availableIndex, available + 2);
    const event = bytes.readUInt16LE(used + 4 + this.#size * 8);
    const isAsked = this.#driver.hasEventIndex
      ? ((this.#availableIndex - event - 1) & 0xffff) < ((this.#availableIndex - before) & 0xffff)
      : (bytes.readUInt16LE(used) & 1) === 0;
    if (isAsked) this.kick();
  }

  kick(): void {
    this.kicks += 1;
    raiseEvent(this.kickFd);
  }

  /** Writes descriptors for a request; gives its head. */
  #fill(pieces: readonly Piece[], isIndirect: boolean): number {
    const { bytes } = this.#driver;
    const needed = isIndirect ? 1 : pieces.length;
    assert.ok(this.#free.length >= needed, 'the ring has room');
    const taken = this.#free.splice(this.#free.length - needed, needed);
    this.#taken.set(taken[0], taken);
    if (isIndirect) {
      const table = this.at.indirect + taken[0] * 512;
      assert.ok(pieces.length <= 32);
      pieces.forEach((piece, i) => {
        writeDescriptor(bytes, table + i * 16, piece, i + 1 < pieces.length ? i + 1 : null);
      });
      const at = this.at.descriptors + taken[0] * 16;
      writeDescriptor(
        bytes,
        at,
        { offset: table, length: pieces.length * 16, writable: false },
        null,
      );
      bytes.writeUInt16LE(4, at + 12);
      return taken[0];
    }
    pieces.forEach((piece, i) => {
      const at = this.at.descriptors + taken[i] * 16;
      writeDescriptor(bytes, at, piece, i + 1 < taken.length ? taken[i + 1] : null);
    });
    return taken[0];
  }

  /** Somebody else writes requests into the ring, the same one twice perhaps. */
  isFilledByHand = false;

  /** Takes all answers that were told. */
  reap(): void {
    const { bytes } = this.#driver;
    const { used, available } = this.at;
    while (bytes.readUInt16LE(used + 2) !== this.#usedIndex) {
      const at = used + 4 + (this.#usedIndex % this.#size) * 8;
      const head = bytes.readUInt32LE(at);
      this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
      const waiting = this.#waiting.get(head);
      if (waiting === undefined && this.isFilledByHand) continue;
      assert.ok(waiting !== undefined, `head ${head} was answered once too often`);
      this.#waiting.delete(head);
      this.#free.push(...(this.#taken.get(head) ?? []));
      this.#taken.delete(head);
      waiting.resolve(bytes.readUInt32LE(at + 4));
      if (this.#driver.hasEventIndex) {
        bytes.writeUInt16LE(this.#usedIndex, available + 4 + this.#size * 2);
      }
    }
  }

  async #listen(signal: AbortSignal): Promise<void> {
    this.reap();
    for (;;) {
      await nextReadable(this.callFd, signal);
      if (signal.aborted) return;
      if (clearEvent(this.callFd)) this.calls += 1;
      this.reap();
    }
  }

  close(): void {
    this.#watched.abort();
    for (const fd of [this.kickFd, this.callFd, this.errorFd]) closeSync(fd);
  }
}

export function writeDescriptor(
  bytes: Buffer,
  at: number,
  piece: Piece,
  next: number | null,
): void {
  bytes.writeBigUInt64LE(BigInt(GUEST_BASE + piece.offset), at);
  bytes.writeUInt32LE(piece.length, at + 8);
  bytes.writeUInt16LE((piece.writable ? 2 : 0) | (next === null ? 0 : 1), at + 12);
  bytes.writeUInt16LE(next ?? 0, at + 14);
}

/** One region: all of a memory, at the places of this module. */
export function memoryTable(sizeBytes: number): Buffer {
  const payload = Buffer.alloc(8 + 32);
  payload.writeUInt32LE(1, 0);
  memoryRegion(GUEST_BASE, sizeBytes, USER_BASE, 0).copy(payload, 8);
  return payload;
}

export function memoryRegion(guest: number, size: number, user: number, offset: number): Buffer {
  const region = Buffer.alloc(32);
  [guest, size, user, offset].forEach((value, i) => region.writeBigUInt64LE(BigInt(value), i * 8));
  return region;
}

export function u64(value: bigint | number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** A queue and a number. */
export function pair(index: number, value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt32LE(index, 0);
  bytes.writeUInt32LE(value, 4);
  return bytes;
}
