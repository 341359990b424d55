import { fstatSync } from 'node:fs';
import { mapShared, type MemoryMap } from '../../../native/memory-map.ts';
import { createMemoryFile } from '../../../native/shared-fd.ts';
import { protocolError } from './vhost-error.ts';

/*
 * Memory that outlives this process: which requests were begun and have no answer yet. The front end keeps
 * it and gives it to the next back end ("Inflight I/O tracking" of the vhost-user specification). One
 * part for each queue:
 *
 *   0 features u64 | 8 version u16 | 10 descriptors u16 | 12 head of the last batch u16 | 14 used index u16
 *   16 + 16 i: in flight u8 | 5 zeros | next of the batch u16 | counter u64
 */
const PART_HEADER_BYTES = 16;
const ENTRY_BYTES = 16;
const PART_ALIGNMENT = 64;
const VERSION = 1;

export interface InflightLayout {
  sizeBytes: number;
  fileOffset: number;
  queues: number;
  queueSize: number;
}

/** Bytes of the whole, for so many queues. */
export function inflightBytes(queues: number, queueSize: number): number {
  return queues * partBytes(queueSize);
}

/** Fresh memory and the descriptor to pass on, which is the caller's. */
export function createInflight(
  queues: number,
  queueSize: number,
): { fd: number; sizeBytes: number } {
  const sizeBytes = inflightBytes(queues, queueSize);
  return { fd: createMemoryFile('replaybd-inflight', sizeBytes), sizeBytes };
}

/** The memory of all queues. */
export class InflightMemory {
  readonly #map: MemoryMap;
  readonly #layout: InflightLayout;

  /** The descriptor stays the caller's. Throws ERR_VHOST_PROTOCOL. */
  constructor(layout: InflightLayout, fd: number) {
    const { sizeBytes, fileOffset, queues, queueSize } = layout;
    const needed = inflightBytes(queues, queueSize);
    const { size } = fstatSync(fd);
    // The offset is of our own making: always 0.
    if (sizeBytes < needed || fileOffset !== 0 || sizeBytes > size || queueSize === 0) {
      const found = `${sizeBytes} at ${fileOffset} of a file of ${size}`;
      throw protocolError('in-flight memory', `${needed} bytes`, found);
    }
    this.#layout = layout;
    this.#map = mapShared(fd, 0, needed, 'in-flight memory');
  }

  /** Null for a queue that it has no part for. */
  part(queue: number, queueSize: number): InflightQueue | null {
    if (queue >= this.#layout.queues || queueSize > this.#layout.queueSize) return null;
    const start = this.#map.bytes.byteOffset + queue * partBytes(this.#layout.queueSize);
    const length = PART_HEADER_BYTES + queueSize * ENTRY_BYTES;
    return new InflightQueue(new DataView(this.#map.bytes.buffer, start, length), queueSize);
  }

  close(): void {
    this.#map.unmap();
  }
}

/** One queue's part. */
export class InflightQueue {
  readonly #view: DataView;
  readonly #queueSize: number;
  #counter = 1;

  constructor(view: DataView, queueSize: number) {
    this.#view = view;
    this.#queueSize = queueSize;
  }

  /**
   * Puts right what an end between two steps left, and gives the heads of requests without answer, in the
   * order in which they were begun. `usedIndex` is the ring's.
   */
  recover(usedIndex: number): number[] {
    const view = this.#view;
    if (view.getUint16(8, true) !== VERSION) {
      this.#initialise(usedIndex);
      return [];
    }
    let unsettled = (usedIndex - view.getUint16(14, true)) & 0xffff;
    let head = view.getUint16(12, true);
    for (; unsettled > 0 && head < this.#queueSize; unsettled -= 1) {
      view.setUint8(entryAt(head), 0);
      head = view.getUint16(entryAt(head) + 6, true);
    }
    view.setUint16(14, usedIndex, true);
    const heads: number[] = [];
    for (let i = 0; i < this.#queueSize; i += 1) {
      if (view.getUint8(entryAt(i)) !== 0) heads.push(i);
    }
    heads.sort((a, b) => this.#counterOf(a) - this.#counterOf(b));
    const newest = heads.at(-1);
    this.#counter = newest === undefined ? 1 : this.#counterOf(newest) + 1;
    return heads;
  }

  /** A request was taken from the ring. */
  begin(head: number): void {
    const at = entryAt(head);
    this.#view.setUint32(at + 8, this.#counter % 2 ** 32, true);
    this.#view.setUint32(at + 12, Math.floor(this.#counter / 2 ** 32), true);
    this.#counter += 1;
    this.#view.setUint8(at, 1);
  }

  /** Its answer is in the ring, but not told yet. */
  answer(head: number): void {
    this.#view.setUint16(entryAt(head) + 6, this.#view.getUint16(12, true), true);
    this.#view.setUint16(12, head, true);
  }

  /** The ring's index has told the first `count` of `heads`. */
  settle(heads: Uint16Array, count: number, usedIndex: number): void {
    for (let i = 0; i < count; i += 1) this.#view.setUint8(entryAt(heads[i]), 0);
    this.#view.setUint16(14, usedIndex, true);
  }

  #initialise(usedIndex: number): void {
    const { buffer, byteOffset, byteLength } = this.#view;
    new Uint8Array(buffer, byteOffset, byteLength).fill(0);
    this.#view.setUint16(10, this.#queueSize, true);
    this.#view.setUint16(14, usedIndex, true);
    this.#view.setUint16(8, VERSION, true);
  }

  #counterOf(head: number): number {
    const at = entryAt(head) + 8;
    return this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
  }
}

function partBytes(queueSize: number): number {
  const bytes = PART_HEADER_BYTES + queueSize * ENTRY_BYTES;
  return Math.ceil(bytes / PART_ALIGNMENT) * PART_ALIGNMENT;
}

function entryAt(head: number): number {
  return PART_HEADER_BYTES + head * ENTRY_BYTES;
}
