import assert from 'node:assert/strict';
import { BLOCK_HEADER_BYTES, blockType } from '../../src/frontend/vhost-user/protocol.ts';
import type { DriverQueue, Piece, VhostDriver } from '../../bench/support/vhost-driver.ts';

const SECTOR = 512;

/** How the driver cuts a request into descriptors. */
export interface Shape {
  isIndirect: boolean;
  /** Lengths of the data's pieces, used again and again until there is no more. */
  cuts: readonly number[];
  /** Header and data, or data and status, share a descriptor. */
  isMerged: boolean;
}

export const PLAIN: Shape = { isIndirect: false, cuts: [2 ** 30], isMerged: false };

/** Block requests of a guest, each in memory of its own while it runs. */
export class VhostDisk {
  readonly #driver: VhostDriver;
  readonly #slotBytes: number;
  readonly #slots: number[];

  constructor(driver: VhostDriver, slotBytes = 512 * 1024) {
    this.#driver = driver;
    this.#slotBytes = slotBytes;
    const count = Math.floor((driver.bytes.length - driver.dataAt) / slotBytes);
    this.#slots = Array.from({ length: count }, (_, i) => driver.dataAt + i * slotBytes);
  }

  async read(queue: DriverQueue, offset: number, length: number, shape = PLAIN): Promise<Buffer> {
    const found = await this.request(queue, blockType.read, offset, null, length, shape);
    assert.deepEqual({ status: found.status, used: found.used }, { status: 0, used: length + 1 });
    return found.data;
  }

  async change(
    queue: DriverQueue,
    type: number,
    offset: number,
    data: Buffer,
    shape = PLAIN,
  ): Promise<void> {
    const { status, used } = await this.request(queue, type, offset, data, 0, shape);
    assert.deepEqual({ status, used }, { status: 0, used: 1 }, `request ${type}`);
  }

  /** A discard or write-zeroes request of these ranges. */
  async clear(queue: DriverQueue, type: number, ranges: readonly [number, number][]) {
    return await this.request(queue, type, 0, rangesOf(ranges), 0, PLAIN);
  }

  async request(
    queue: DriverQueue,
    type: number,
    offset: number,
    out: Buffer | null,
    inBytes: number,
    shape: Shape,
  ): Promise<{ status: number; used: number; data: Buffer }> {
    const slot = this.#slots.pop();
    assert.ok(slot !== undefined, 'there is memory for another request');
    const { bytes } = this.#driver;
    const dataBytes = (out?.length ?? 0) + inBytes;
    assert.ok(BLOCK_HEADER_BYTES + dataBytes + 1 <= this.#slotBytes);
    bytes.writeUInt32LE(type, slot);
    bytes.writeUInt32LE(0, slot + 4);
    bytes.writeBigUInt64LE(BigInt(offset / SECTOR), slot + 8);
    const dataAt = slot + BLOCK_HEADER_BYTES;
    out?.copy(bytes, dataAt);
    bytes.fill(0xee, dataAt + (out?.length ?? 0), dataAt + dataBytes + 1);
    const used = await queue.submit(
      piecesOf(slot, out?.length ?? 0, inBytes, shape),
      shape.isIndirect,
    );
    const status = bytes[dataAt + dataBytes];
    const data = Buffer.from(bytes.subarray(dataAt, dataAt + inBytes));
    this.#slots.push(slot);
    return { status, used, data };
  }
}

/** Header, data and status lie one after the other in memory; the shape says where they are cut. */
function piecesOf(slot: number, outBytes: number, inBytes: number, shape: Shape): Piece[] {
  const readable = cut(slot, BLOCK_HEADER_BYTES, outBytes, 'head', false, shape);
  const answerAt = slot + BLOCK_HEADER_BYTES + outBytes;
  return [...readable, ...cut(answerAt, 1, inBytes, 'tail', true, shape)];
}

function cut(
  start: number,
  fixed: number,
  dataBytes: number,
  fixedEnd: 'head' | 'tail',
  writable: boolean,
  { cuts, isMerged }: Shape,
): Piece[] {
  const pieces: Piece[] = [];
  let at = start;
  const push = (length: number): void => {
    if (length > 0) pieces.push({ offset: at, length, writable });
    at += length;
  };
  if (isMerged) {
    push(fixed + dataBytes);
    return pieces;
  }
  if (fixedEnd === 'head') push(fixed);
  for (let done = 0, i = 0; done < dataBytes; i += 1) {
    // Few enough pieces for a small ring; the last has what is left.
    const length = i < 8 ? Math.min(cuts[i % cuts.length], dataBytes - done) : dataBytes - done;
    push(length);
    done += length;
  }
  if (fixedEnd === 'tail') push(fixed);
  return pieces;
}

/** The data of a discard or write-zeroes request. */
export function rangesOf(ranges: readonly [number, number][], flags = 0): Buffer {
  const data = Buffer.alloc(ranges.length * 16);
  ranges.forEach(([offset, length], i) => {
    data.writeBigUInt64LE(BigInt(offset / SECTOR), i * 16);
    data.writeUInt32LE(length / SECTOR, i * 16 + 8);
    data.writeUInt32LE(flags, i * 16 + 12);
  });
  return data;
}
