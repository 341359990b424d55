import type {
  BlockDevice,
  DeviceExtent,
  DeviceWriter,
  RemapListener,
  SharedDevice,
} from '../device/block-device.ts';
import type { WritableDevice } from '../device/writable-device.ts';
import { countingWriter, noWrites, type WriteCounts } from './write-counts.ts';

/** A writable device as front ends have it: what they change through the main thread is counted. */
export class GuestDevice implements BlockDevice {
  readonly id: string;
  readonly readOnly = false;
  readonly writer: DeviceWriter;
  /** What worker threads write by themselves is not in it; the tap knows. */
  readonly counts: WriteCounts = noWrites();
  readonly #device: WritableDevice;

  constructor(device: WritableDevice) {
    this.id = device.id;
    this.#device = device;
    this.writer = countingWriter(device.writer, this.counts);
  }

  get virtualSizeBytes(): number {
    return this.#device.virtualSizeBytes;
  }

  get shared(): SharedDevice {
    return this.#device.shared;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    return this.#device.readCached(offset, into);
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#device.read(offset, into, signal);
  }

  extents(offset: number, length: number): DeviceExtent[] {
    return this.#device.extents(offset, length);
  }

  onRemap(listener: RemapListener): () => void {
    return this.#device.onRemap(listener);
  }
}
