import { SECTOR_BYTES } from '../base/limits.ts';
import type { Stack } from '../image/stack.ts';
import type { BlockDevice, DeviceExtent, SharedDevice } from './block-device.ts';
import { CachedReader } from './cached-reader.ts';
import { extentsOf, MissReader, stackData, type MissOptions } from './miss-reader.ts';

export type { MissObserver } from './miss-reader.ts';

export interface DeviceOptions extends MissOptions {
  stack: Stack;
  shared: SharedDevice;
}

/** A read-only disk over a stack of lowers. */
export class StackDevice implements BlockDevice {
  readonly id: string;
  readonly readOnly = true;
  readonly shared: SharedDevice;
  readonly #stack: Stack;
  readonly #reader: CachedReader;
  readonly #misses: MissReader;

  constructor(options: DeviceOptions) {
    const { id, shared, stack } = options;
    this.id = id;
    this.shared = shared;
    this.#stack = stack;
    const reader = new CachedReader(shared, 0);
    this.#reader = reader;
    this.#misses = new MissReader(options, () => ({ stack, reader }));
  }

  get virtualSizeBytes(): number {
    return this.#stack.map.virtualSizeBytes;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    return this.#reader.readCached(offset, into);
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#misses.read(offset, into, signal);
  }

  /** Which parts of a range hold data; the rest reads as zeros. */
  extents(offset: number, length: number): DeviceExtent[] {
    const data = stackData(this.#stack, offset / SECTOR_BYTES, length / SECTOR_BYTES);
    return extentsOf(offset, length, data);
  }
}
