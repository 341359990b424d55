import { vhostUserLimits } from './limits.ts';
import type { GuestMemory, GuestRegion } from './guest-memory.ts';
import { Segments } from './segments.ts';
import { ringError } from './vhost-error.ts';

const DESCRIPTOR_BYTES = 16;
const FLAG_NEXT = 1;
const FLAG_WRITE = 2;
const FLAG_INDIRECT = 4;
const WORD = 2 ** 32;

/** A table of descriptors in guest memory. */
interface Table {
  region: GuestRegion;
  offset: number;
  entries: number;
}

/**
 * One request's descriptors, followed and checked (virtio 1.2, 2.7.5). Each is read once: what the guest
 * changes afterwards changes nothing here.
 */
export class DescriptorChain {
  /** What the guest says. */
  readonly readable = new Segments();
  /** Where the answer goes. */
  readonly writable = new Segments();
  readonly #memory: GuestMemory;
  readonly #allowsIndirect: boolean;
  #descriptors = 0;

  constructor(memory: GuestMemory, allowsIndirect: boolean) {
    this.#memory = memory;
    this.#allowsIndirect = allowsIndirect;
  }

  /** Throws ERR_VIRTQUEUE when the chain is not one. */
  follow(table: Table, head: number): void {
    this.readable.clear();
    this.writable.clear();
    this.#descriptors = 0;
    this.#walk(table, head, this.#allowsIndirect);
  }

  #walk(table: Table, head: number, allowsIndirect: boolean): void {
    const { view } = table.region;
    // A chain that is longer than its table visits some descriptor twice.
    for (let index = head, steps = 0; ; steps += 1) {
      if (index >= table.entries || steps >= table.entries) {
        const found = index >= table.entries ? `descriptor ${index}` : 'a loop';
        throw ringError('chain', `at most ${table.entries} descriptors`, found);
      }
      const at = table.offset + index * DESCRIPTOR_BYTES;
      const address = view.getUint32(at, true) + view.getUint32(at + 4, true) * WORD;
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      const next = view.getUint16(at + 14, true);
      if ((flags & FLAG_INDIRECT) !== 0) {
        if (!allowsIndirect || (flags & FLAG_NEXT) !== 0) {
          throw ringError(
            'chain',
            'no indirect table here',
            `descriptor ${index} with flags ${flags}`,
          );
        }
        return this.#walkIndirect(address, length);
      }
      this.#add(address, length, (flags & FLAG_WRITE) !== 0);
      if ((flags & FLAG_NEXT) === 0) return;
      index = next;
    }
  }

  #walkIndirect(address: number, length: number): void {
    const entries = length / DESCRIPTOR_BYTES;
    if (!Number.isInteger(entries) || entries < 1 || entries > vhostUserLimits.descriptorsMax) {
      throw ringError('indirect table', 'whole descriptors, not too many', `${length} bytes`);
    }
    const region = this.#memory.locate(address, length);
    if (region === null) throw outside(address, length);
    this.#walk({ region, offset: this.#memory.offset, entries }, 0, false);
  }

  #add(address: number, length: number, isWritable: boolean): void {
    this.#descriptors += 1;
    if (this.#descriptors > vhostUserLimits.descriptorsMax) {
      throw ringError('chain', `at most ${vhostUserLimits.descriptorsMax} descriptors`, 'more');
    }
    if (!isWritable && this.writable.totalBytes > 0) {
      throw ringError('chain', 'what is read before what is written', 'the other way round');
    }
    if (length === 0) return;
    const region = this.#memory.locate(address, length);
    if (region === null) throw outside(address, length);
    (isWritable ? this.writable : this.readable).push(region, this.#memory.offset, length);
  }
}

function outside(address: number, length: number): Error {
  const found = `${length} bytes at 0x${address.toString(16)}`;
  return ringError('descriptor', 'an address in guest memory', found);
}
