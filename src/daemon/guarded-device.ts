import { messageOf, ReplaybdError } from '../base/errors.ts';
import type {
  BlockDevice,
  DeviceExtent,
  DeviceWriter,
  RemapListener,
  SharedDevice,
} from '../device/block-device.ts';

/**
 * A device as front ends have it, which can be declared failed: from then on it answers EIO, to
 * threads that read it by themselves too.
 */
export class GuardedDevice implements BlockDevice {
  readonly id: string;
  readonly readOnly: boolean;
  readonly writer?: DeviceWriter;
  readonly onRemap?: (listener: RemapListener) => () => void;
  readonly #device: BlockDevice;
  #failure: ReplaybdError | null = null;

  constructor(device: BlockDevice) {
    this.#device = device;
    this.id = device.id;
    this.readOnly = device.readOnly;
    if (device.writer !== undefined) this.writer = this.#guardedWriter(device.writer);
    if (device.onRemap !== undefined) {
      this.onRemap = device.onRemap.bind(device);
      device.onRemap(() => {
        if (this.#failure !== null) this.#retireReaders();
      });
    }
  }

  get virtualSizeBytes(): number {
    return this.#device.virtualSizeBytes;
  }

  get shared(): SharedDevice {
    return this.#device.shared;
  }

  get failure(): ReplaybdError | null {
    return this.#failure;
  }

  /** Idempotent: the first reason counts. */
  fail(cause: unknown): void {
    this.#failure ??= new ReplaybdError(
      'ERR_DEVICE_FAILED',
      `device ${this.id} has failed: ${messageOf(cause)}. Detach it and attach it again.`,
      { cause },
    );
    this.#retireReaders();
  }

  readCached(offset: number, into: Uint8Array): boolean {
    return this.#failure === null && this.#device.readCached(offset, into);
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#check();
    await this.#device.read(offset, into, signal);
  }

  extents(offset: number, length: number): DeviceExtent[] {
    return this.#device.extents?.(offset, length) ?? [{ offset, length, zero: false }];
  }

  #check(): void {
    if (this.#failure !== null) throw this.#failure;
  }

  #guardedWriter(writer: DeviceWriter): DeviceWriter {
    const guarded = async (change: () => Promise<void>): Promise<void> => {
      this.#check();
      await change();
    };
    return {
      write: (offset, data, fua) => guarded(() => writer.write(offset, data, fua)),
      flush: () => guarded(() => writer.flush()),
      discard: (offset, length) => guarded(() => writer.discard(offset, length)),
      writeZeroes: (offset, length) => guarded(() => writer.writeZeroes(offset, length)),
    };
  }

  /** Threads that read by themselves then hand everything to this one. */
  #retireReaders(): void {
    const { superseded } = this.#device.shared;
    if (superseded !== undefined) Atomics.store(new Int32Array(superseded), 0, 1);
  }
}
