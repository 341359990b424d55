import type { DeviceExtent, DeviceWriter } from '../../device/block-device.ts';
import type { ScsiDevice } from './scsi/logical-unit.ts';

/**
 * A device whose writes are answered when they are durable. The disk outlives the process that serves
 * it: what was acknowledged must be there for the next one, and a killed process takes with it what a
 * writable layer has not written down. Writes that come together are made durable together.
 */
export class WriteThroughDevice implements ScsiDevice {
  readonly writer?: DeviceWriter;
  readonly extents?: (offset: number, length: number) => DeviceExtent[];
  readonly #device: ScsiDevice;

  constructor(device: ScsiDevice) {
    this.#device = device;
    const { writer } = device;
    if (writer !== undefined) this.writer = writeThrough(writer);
    if (device.extents !== undefined) {
      this.extents = (offset, length) => device.extents?.(offset, length) ?? [];
    }
  }

  get id(): string {
    return this.#device.id;
  }

  get virtualSizeBytes(): number {
    return this.#device.virtualSizeBytes;
  }

  get readOnly(): boolean {
    return this.#device.readOnly;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    return this.#device.readCached(offset, into);
  }

  read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    return this.#device.read(offset, into, signal);
  }
}

function writeThrough(writer: DeviceWriter): DeviceWriter {
  return {
    write: (offset, data) => writer.write(offset, data, true),
    flush: () => writer.flush(),
    discard: async (offset, length) => {
      await writer.discard(offset, length);
      await writer.flush();
    },
    writeZeroes: async (offset, length) => {
      await writer.writeZeroes(offset, length);
      await writer.flush();
    },
  };
}
