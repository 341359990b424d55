import { ringError } from './vhost-error.ts';
import type { GuestMemory, GuestRegion } from './guest-memory.ts';

const DESCRIPTOR_BYTES = 16;
const USED_ENTRY_BYTES = 8;
/** Flags and index before a ring's entries, event index after. */
const RING_HEADER_BYTES = 4;
const EVENT_BYTES = 2;
const INDEX = 1;
const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

/** Where the front end says that a queue's three parts are, in its own addresses. */
export interface RingAddresses {
  descriptors: number;
  used: number;
  available: number;
}

/**
 * A split virtqueue's rings (virtio 1.2, 2.7.6 to 2.7.10). Indexes run to 65,535 and wrap; those that the
 * guest writes meanwhile are read and written as atomics, which also order what is around them.
 */
export class SplitRing {
  readonly descriptors: { region: GuestRegion; offset: number; entries: number };
  readonly #size: number;
  readonly #hasEventIndex: boolean;
  readonly #available: Uint16Array;
  readonly #used: Uint16Array;
  readonly #usedEntries: Uint32Array;
  /** The next entry of the available ring to be taken. */
  availableIndex: number;
  /** The next entry of the used ring to be filled. */
  usedIndex: number;
  #toldIndex: number;

  /** Throws ERR_VIRTQUEUE for addresses that are outside of memory or not aligned. */
  constructor(memory: GuestMemory, addresses: RingAddresses, size: number, hasEventIndex: boolean) {
    this.#size = size;
    this.#hasEventIndex = hasEventIndex;
    const region = locate(memory, addresses.descriptors, size * DESCRIPTOR_BYTES, 16);
    this.descriptors = { region, offset: memory.offset, entries: size };
    const availableBytes = RING_HEADER_BYTES + size * 2 + EVENT_BYTES;
    const available = locate(memory, addresses.available, availableBytes, 2);
    this.#available = new Uint16Array(
      available.bytes.buffer,
      available.bytes.byteOffset + memory.offset,
      availableBytes / 2,
    );
    const usedBytes = RING_HEADER_BYTES + size * USED_ENTRY_BYTES + EVENT_BYTES;
    const used = locate(memory, addresses.used, usedBytes, 4);
    const usedAt = used.bytes.byteOffset + memory.offset;
    this.#used = new Uint16Array(used.bytes.buffer, usedAt, usedBytes / 2);
    this.#usedEntries = new Uint32Array(used.bytes.buffer, usedAt + RING_HEADER_BYTES, size * 2);
    this.usedIndex = Atomics.load(this.#used, INDEX);
    this.#toldIndex = this.usedIndex;
    this.availableIndex = this.usedIndex;
  }

  /** Goes on where the same ring was in other mappings. */
  continueFrom(other: SplitRing): void {
    this.availableIndex = other.availableIndex;
    this.usedIndex = other.usedIndex;
    this.#toldIndex = other.#toldIndex;
  }

  /** The head of the next request, or -1 when there is none. Throws ERR_VIRTQUEUE. */
  take(): number {
    const waiting = (Atomics.load(this.#available, INDEX) - this.availableIndex) & 0xffff;
    if (waiting === 0) return -1;
    if (waiting > this.#size) {
      throw ringError('available ring', `at most ${this.#size} requests`, String(waiting));
    }
    const head = this.#available[2 + (this.availableIndex % this.#size)];
    if (head >= this.#size) throw ringError('available ring', 'a descriptor', String(head));
    this.availableIndex = (this.availableIndex + 1) & 0xffff;
    return head;
  }

  /** Lets the guest kick, or not, when it adds a request. `take` again after allowing it. */
  allowKicks(isAllowed: boolean): void {
    if (!this.#hasEventIndex) {
      Atomics.store(this.#used, 0, isAllowed ? 0 : NO_NOTIFY);
    } else if (isAllowed) {
      Atomics.store(this.#used, this.#used.length - 1, this.availableIndex);
    }
  }

  /** An answer of `length` bytes, which the guest learns of with the next `tell`. */
  put(head: number, length: number): void {
    const at = (this.usedIndex % this.#size) * 2;
    this.#usedEntries[at] = head;
    this.#usedEntries[at + 1] = length;
    this.usedIndex = (this.usedIndex + 1) & 0xffff;
  }

  /** Shows the guest all answers so far; true when it wants to be called. */
  tell(): boolean {
    const before = this.#toldIndex;
    Atomics.store(this.#used, INDEX, this.usedIndex);
    this.#toldIndex = this.usedIndex;
    if (!this.#hasEventIndex) return (Atomics.load(this.#available, 0) & NO_INTERRUPT) === 0;
    const event = Atomics.load(this.#available, this.#available.length - 1);
    // Whether `event` is among those told now: vring_need_event of virtio 1.2, 2.7.7.2.
    return ((this.usedIndex - event - 1) & 0xffff) < ((this.usedIndex - before) & 0xffff);
  }
}

function locate(
  memory: GuestMemory,
  address: number,
  length: number,
  alignment: number,
): GuestRegion {
  const region = memory.locateUser(address, length);
  // Memory is mapped by pages, so where it lies in a region's file decides.
  if (region !== null && (region.bytes.byteOffset + memory.offset) % alignment === 0) return region;
  const found = `0x${address.toString(16)}`;
  throw ringError('ring', `${length} bytes of guest memory, aligned to ${alignment}`, found);
}
