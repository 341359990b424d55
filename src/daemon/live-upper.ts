import type { SnapshotReport } from '../device/snapshot.ts';
import type { TapDrain } from '../device/tap.ts';
import { WritableDevice, type WritableDeviceOptions } from '../device/writable-device.ts';
import type { UpperPaths } from '../image/lsmt/create-upper.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import type { Stack, StackPiece } from '../image/stack.ts';
import type { SnapshotParameters } from './control-parameters.ts';
import { GuestDevice } from './guest-device.ts';
import type { OpenedUpper } from './open-upper.ts';
import { nextUpperPaths } from './upper-folder.ts';
import type { WriteCounts } from './write-counts.ts';

/** What became of a writable layer, for people and programs. */
export interface UpperReport extends WriteCounts, UpperPaths {
  readonly kind: UpperKind;
}

/** What a snapshot did. */
export interface SnapshotFacts extends SnapshotReport {
  readonly device: string;
  /** The configuration, rewritten. */
  readonly config: string;
  /** How many there are now. */
  readonly lowers: number;
}

export type LiveUpperOptions = Omit<WritableDeviceOptions, 'upper'> &
  OpenedUpper & { drain: TapDrain };

/** The writable side of an attached device. */
export class LiveUpper {
  /** As front ends get it. */
  readonly device: GuestDevice;
  readonly #device: WritableDevice;
  readonly #options: LiveUpperOptions;

  constructor(options: LiveUpperOptions) {
    this.#options = options;
    const { layer, location } = options;
    this.#device = new WritableDevice({
      ...options,
      upper: layer,
      configPath: location.configPath,
    });
    this.device = new GuestDevice(this.#device);
  }

  /** What guests changed, on whichever thread. */
  get counts(): WriteCounts {
    const { counts } = this.device;
    const { writes, bytes } = this.#options.drain.written;
    return {
      ...counts,
      writes: counts.writes + writes,
      writtenBytes: counts.writtenBytes + bytes,
    };
  }

  report(): UpperReport {
    const { kind, paths } = this.#device.upper;
    return { kind, data: paths.data, index: paths.index, ...this.counts };
  }

  /** What of some sectors layers below the writable ones serve, as the device is now. */
  locate(lba: number, sectors: number): StackPiece[] {
    return this.#device.locate(lba, sectors);
  }

  /** The lowers as they are now. */
  get stack(): Stack {
    return this.#device.stack;
  }

  /** Nothing was ever written to the present layer. */
  get isUntouched(): boolean {
    return this.#device.upper.isEmpty;
  }

  /**
   * Seals the writable layer, which becomes the topmost lower, and goes on with another. Errors: see
   * WritableDevice.snapshot.
   */
  async snapshot({ data, index, kind }: SnapshotParameters): Promise<SnapshotFacts> {
    const upper =
      data === undefined || index === undefined
        ? await nextUpperPaths(this.#device.upper.paths)
        : { data, index };
    const report = await this.#device.snapshot({
      ...upper,
      log: this.#options.log,
      ...(kind === undefined ? {} : { kind }),
    });
    const { configPath } = this.#options.location;
    const { layers } = this.stack;
    return { device: this.device.id, ...report, config: configPath, lowers: layers.length };
  }

  /** See WritableDevice.grow. */
  async grow(virtualSizeBytes: number): Promise<void> {
    await this.#device.grow(virtualSizeBytes);
  }

  /** Makes durable what was written, and closes the layer. */
  async close(): Promise<void> {
    await this.#device.close();
  }
}
