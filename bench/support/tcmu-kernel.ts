import assert from 'node:assert/strict';
import {
  COMMAND_BYTES_MIN,
  entryField,
  entryOp,
  mailboxField,
  OP_MASK,
  responseField,
  taskField,
  userFlag,
  VECTOR_BYTES,
} from '../../src/frontend/tcmu/ring-layout.ts';

const PAGE_BYTES = 4096;
const RING_OFFSET = 128;
const SENSE_BYTES = 96;

export interface TcmuKernelOptions {
  /** Of mailbox and ring, a multiple of pages. */
  ringAreaBytes?: number;
  dataBytes?: number;
  flags?: number;
  /** Of both areas; zeroed memory of its own when absent. */
  memory?: Uint8Array;
}

export interface KernelRequest {
  cdb: Uint8Array;
  dataOut?: Uint8Array;
  dataInBytes?: number;
}

/** A command as the kernel remembers it. */
export interface KernelCommand {
  readonly id: number;
  readonly pages: readonly number[];
  readonly pagesIn: readonly number[];
  readonly dataInBytes: number;
  status: number;
  /** Bytes that were returned; -1 when the answer does not say. */
  readLength: number;
  sense: Uint8Array;
  wasUnknown: boolean;
}

/**
 * The kernel's side of a TCMU device (drivers/target/target_core_user.c): the same layout in plain
 * memory, entries with padding at the ring's end, data pages from the lowest free one, completions
 * by tail and command id. What the kernel would call a broken ring throws.
 */
export class TcmuKernel {
  readonly memory: Uint8Array;
  readonly view: DataView;
  readonly ringBytes: number;
  readonly commands = new Map<number, KernelCommand>();
  onComplete: (command: KernelCommand) => void = () => undefined;
  kicks = 0;
  pads = 0;
  wraps = 0;
  readonly #words: Int32Array;
  readonly #dataOffset: number;
  readonly #isUsed: Uint8Array;
  #cleaned = 0;
  #head = 0;
  #nextId = 0;

  constructor(options: TcmuKernelOptions = {}) {
    const ringArea = options.ringAreaBytes ?? 64 * 1024;
    const dataBytes = options.dataBytes ?? 4 * 1024 * 1024;
    this.memory = options.memory ?? new Uint8Array(ringArea + dataBytes);
    assert.equal(this.memory.length, ringArea + dataBytes);
    this.view = new DataView(this.memory.buffer, this.memory.byteOffset, this.memory.length);
    this.#words = new Int32Array(this.memory.buffer, this.memory.byteOffset, RING_OFFSET / 4);
    this.#dataOffset = ringArea;
    this.ringBytes = ringArea - RING_OFFSET;
    this.#isUsed = new Uint8Array(dataBytes / PAGE_BYTES);
    this.view.setUint16(mailboxField.version, 2, true);
    this.view.setUint16(mailboxField.flags, options.flags ?? 0x7, true);
    this.view.setUint32(mailboxField.ringOffset, RING_OFFSET, true);
    this.view.setUint32(mailboxField.ringBytes, this.ringBytes, true);
  }

  /** Puts a command into the ring; null when there is no room. The daemon is not told. */
  submit({ cdb, dataOut, dataInBytes = 0 }: KernelRequest): KernelCommand | null {
    const isBidirectional = dataOut !== undefined && dataInBytes > 0;
    const pages = this.#allocate(dataOut?.length ?? dataInBytes);
    const pagesIn = isBidirectional && pages !== null ? this.#allocate(dataInBytes) : [];
    const vectors =
      pages === null || pagesIn === null
        ? null
        : this.#vectors(pages, dataOut?.length ?? dataInBytes);
    const vectorsIn =
      vectors === null || !isBidirectional ? [] : this.#vectors(pagesIn ?? [], dataInBytes);
    const count = (vectors?.length ?? 0) + vectorsIn.length;
    const base = Math.max(COMMAND_BYTES_MIN, entryField.vectors + count * VECTOR_BYTES);
    const length = base + roundUp(cdb.length);
    if (pages === null || pagesIn === null || vectors === null || !this.#makeRoom(length)) {
      this.#free(pages ?? []);
      this.#free(pagesIn ?? []);
      return null;
    }
    if (dataOut !== undefined) this.#copyOut(vectors, dataOut);
    const command: KernelCommand = {
      id: this.#takeId(),
      pages,
      pagesIn: isBidirectional ? pagesIn : pages,
      dataInBytes,
      status: -1,
      readLength: -1,
      sense: new Uint8Array(0),
      wasUnknown: false,
    };
    this.commands.set(command.id, command);
    const at = this.#writeEntry(entryOp.command, length, command.id);
    this.view.setUint32(at + entryField.vectorCount, vectors.length, true);
    this.view.setUint32(at + entryField.bidirectionalCount, vectorsIn.length, true);
    this.view.setUint32(at + entryField.cdbOffset, at + base, true);
    this.memory.set(cdb, at + base);
    [...vectors, ...vectorsIn].forEach(([offset, bytes], i) => {
      const vector = at + entryField.vectors + i * VECTOR_BYTES;
      this.view.setUint32(vector, offset, true);
      this.view.setUint32(vector + 8, bytes, true);
    });
    this.#publish(length);
    return command;
  }

  /** Tells of aborted commands, as for an ABORT TASK (1) or a LOGICAL UNIT RESET (5). */
  notify(type: number, ids: readonly number[]): void {
    const length = roundUp(taskField.commandIds + 2 * ids.length);
    assert(this.#makeRoom(length));
    const at = this.#writeEntry(entryOp.taskManagement, length, 0);
    this.view.setUint8(at + taskField.type, type);
    this.view.setUint32(at + taskField.count, ids.length, true);
    ids.forEach((id, i) => this.view.setUint16(at + taskField.commandIds + 2 * i, id, true));
    this.#publish(length);
  }

  /** An entry of a kind that has not been invented yet; it is a command to the kernel. */
  submitUnknown(): KernelCommand {
    assert(this.#makeRoom(COMMAND_BYTES_MIN));
    const id = this.#takeId();
    const none = { pages: [], pagesIn: [], dataInBytes: 0, readLength: -1 };
    const command = { id, ...none, status: -1, sense: new Uint8Array(0), wasUnknown: false };
    this.commands.set(id, command);
    this.#writeEntry(5, COMMAND_BYTES_MIN, id);
    this.#publish(COMMAND_BYTES_MIN);
    return command;
  }

  /** tcmu_handle_completions: everything up to the tail. */
  readonly kick = (): void => {
    this.kicks += 1;
    const tail = Atomics.load(this.#words, mailboxField.tail / 4);
    while (this.#cleaned !== tail) {
      const at = RING_OFFSET + this.#cleaned;
      const lengthAndOp = this.view.getUint32(at, true);
      const op = lengthAndOp & OP_MASK;
      const length = lengthAndOp - op;
      assert(length > 0 && this.#cleaned + length <= this.ringBytes, 'the ring is broken');
      this.#cleaned = (this.#cleaned + length) % this.ringBytes;
      if (op !== entryOp.pad && op !== entryOp.taskManagement) this.#complete(at);
    }
  };

  /** What a completed command has for its initiator; valid until its pages are used again. */
  dataIn(command: KernelCommand): Uint8Array {
    const bytes = new Uint8Array(command.dataInBytes);
    let done = 0;
    for (const page of command.pagesIn) {
      const at = this.#dataOffset + page * PAGE_BYTES;
      const take = Math.min(PAGE_BYTES, bytes.length - done);
      bytes.set(this.memory.subarray(at, at + take), done);
      done += take;
    }
    return command.readLength < 0 ? bytes : bytes.subarray(0, command.readLength);
  }

  /** Data pages that nobody uses are taken, so that what is left is in pieces. */
  fragment(isTaken: (page: number) => boolean): void {
    this.#isUsed.forEach((_, page) => {
      if (isTaken(page)) this.#isUsed[page] = 1;
    });
  }

  #complete(at: number): void {
    const id = this.view.getUint16(at + entryField.commandId, true);
    const command = this.commands.get(id);
    assert(command !== undefined, `cmd_id ${id} not found, the ring is broken`);
    this.commands.delete(id);
    const flags = this.view.getUint8(at + entryField.userFlags);
    command.wasUnknown = (flags & userFlag.unknownOp) !== 0;
    command.status = this.view.getUint8(at + responseField.status);
    if ((flags & userFlag.readLength) !== 0) {
      command.readLength = this.view.getUint32(at + responseField.readLength, true);
    }
    if (command.status === 2) {
      const sense = at + responseField.sense;
      command.sense = this.memory.slice(sense, sense + SENSE_BYTES);
    }
    this.onComplete(command);
    this.#free(command.pages);
    if (command.pagesIn !== command.pages) this.#free(command.pagesIn);
  }

  #takeId(): number {
    do this.#nextId = (this.#nextId + 1) % 65_536;
    while (this.commands.has(this.#nextId));
    return this.#nextId;
  }

  #allocate(bytes: number): number[] | null {
    const pages: number[] = [];
    const wanted = Math.ceil(bytes / PAGE_BYTES);
    for (let page = 0; pages.length < wanted; page += 1) {
      if (page === this.#isUsed.length) {
        this.#free(pages);
        return null;
      }
      if (this.#isUsed[page] === 1) continue;
      this.#isUsed[page] = 1;
      pages.push(page);
    }
    return pages;
  }

  #free(pages: readonly number[]): void {
    for (const page of pages) this.#isUsed[page] = 0;
  }

  /** Offsets and lengths in the mapping; neighbours are one. */
  #vectors(pages: readonly number[], bytes: number): [number, number][] {
    const vectors: [number, number][] = [];
    let left = bytes;
    for (const page of pages) {
      const offset = this.#dataOffset + page * PAGE_BYTES;
      const take = Math.min(PAGE_BYTES, left);
      const last = vectors.at(-1);
      if (last !== undefined && last[0] + last[1] === offset) last[1] += take;
      else vectors.push([offset, take]);
      left -= take;
    }
    return vectors;
  }

  #copyOut(vectors: readonly [number, number][], data: Uint8Array): void {
    let done = 0;
    for (const [offset, bytes] of vectors) {
      this.memory.set(data.subarray(done, done + bytes), offset);
      done += bytes;
    }
  }

  /** Room for an entry that does not wrap; pads the ring's end. One entry's room stays empty. */
  #makeRoom(length: number): boolean {
    const used = (this.#head - this.#cleaned + this.ringBytes) % this.ringBytes;
    const toEnd = this.ringBytes - this.#head;
    const needed = length > toEnd ? toEnd + length : length;
    if (used + needed >= this.ringBytes) return false;
    if (length > toEnd) {
      this.pads += 1;
      this.#writeEntry(entryOp.pad, toEnd, 0);
      this.#publish(toEnd);
    }
    return true;
  }

  #writeEntry(op: number, length: number, id: number): number {
    const at = RING_OFFSET + this.#head;
    this.memory.fill(0, at, at + Math.min(length, COMMAND_BYTES_MIN));
    this.view.setUint32(at, length | op, true);
    this.view.setUint16(at + entryField.commandId, id, true);
    return at;
  }

  #publish(length: number): void {
    this.#head = (this.#head + length) % this.ringBytes;
    if (this.#head < length) this.wraps += 1;
    Atomics.store(this.#words, mailboxField.head / 4, this.#head);
  }
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
