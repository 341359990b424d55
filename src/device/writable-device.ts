import type { Blob } from '../blob/blob.ts';
import { ReplaybdError } from '../base/errors.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';
import { runKinds } from '../image/lsmt/sector-map.ts';
import type { WritableUpper } from '../image/lsmt/writable-upper.ts';
import type { Stack, StackPiece } from '../image/stack.ts';
import type {
  BlockDevice,
  DeviceExtent,
  DeviceWriter,
  RemapListener,
  SharedDevice,
  TapMap,
} from './block-device.ts';
import { CachedReader } from './cached-reader.ts';
import { extentsOf, MissReader, stackData, type MissOptions } from './miss-reader.ts';
import { takeSnapshot, type SnapshotOptions, type SnapshotReport } from './snapshot.ts';

export interface WritableDeviceOptions extends MissOptions {
  /** What lies below; `emptyStack` where nothing does. Its blobs stay the caller's to close. */
  stack: Stack;
  tap: TapMap;
  /** The device's from now on: closing the device closes it. */
  upper: WritableUpper;
  /**
   * The config.v1.json that names the stack and the upper; a snapshot rewrites it. Without one the
   * device takes no snapshots.
   */
  configPath?: string;
}

/** What a device consists of between two snapshots. */
interface Generation {
  readonly stack: Stack;
  readonly upper: WritableUpper;
  readonly shared: SharedDevice;
  readonly superseded: SharedArrayBuffer;
  readonly reader: CachedReader;
}

/**
 * A disk that can be written: a writable layer over a stack of lowers. Writes go to the writable
 * layer and nowhere else, whatever lies below, fetched or not. Worker threads read and write by
 * `shared` themselves.
 */
export class WritableDevice implements BlockDevice {
  readonly id: string;
  readonly readOnly = false;
  readonly writer: DeviceWriter;
  readonly #options: WritableDeviceOptions;
  readonly #tap: TapMap;
  readonly #misses: MissReader;
  readonly #listeners = new Set<RemapListener>();
  /** Uppers of former generations, of which some thread may still have a map. */
  readonly #former = new Set<WritableUpper>();
  /** Of the layers that snapshots added. */
  readonly #ownBlobs: Blob[] = [];
  #now: Generation;
  /** The snapshot or the growth that is under way; never rejects. */
  #rearranging: Promise<unknown> | null = null;

  constructor(options: WritableDeviceOptions) {
    this.id = options.id;
    this.#options = options;
    this.#tap = options.tap;
    this.#now = this.#generation(options.stack, options.upper, null);
    this.#misses = new MissReader(options, () => this.#now);
    this.writer = {
      write: (offset, data, fua) => this.#write(offset, data, fua),
      flush: () => this.#onUpper((upper) => upper.flush()),
      discard: (offset, length) => this.#onUpper((upper) => upper.discard(offset, length)),
      writeZeroes: (offset, length) => this.#onUpper((upper) => upper.discard(offset, length)),
    };
  }

  get virtualSizeBytes(): number {
    return this.#now.upper.virtualSizeBytes;
  }

  get shared(): SharedDevice {
    return this.#now.shared;
  }

  /** The lowers; a snapshot adds one. */
  get stack(): Stack {
    return this.#now.stack;
  }

  /** The writable layer; a snapshot puts another in its place. */
  get upper(): WritableUpper {
    return this.#now.upper;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    return this.#now.reader.readCached(offset, into);
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    await this.#misses.read(offset, into, signal);
  }

  extents(offset: number, length: number): DeviceExtent[] {
    const { stack, reader } = this.#now;
    const data: ByteRange[] = [];
    for (const run of reader.writableRuns(offset / SECTOR_BYTES, length / SECTOR_BYTES)) {
      const { lba, sectors, kind } = run;
      if (kind === runKinds.absent) data.push(...stackData(stack, lba, sectors));
      if (kind === runKinds.data) {
        data.push({ offset: lba * SECTOR_BYTES, length: sectors * SECTOR_BYTES });
      }
    }
    return extentsOf(offset, length, data);
  }

  /** What of some sectors layers below the writable ones serve, as the device is now. */
  locate(lba: number, sectors: number): StackPiece[] {
    const { stack, reader } = this.#now;
    return reader
      .writableRuns(lba, sectors)
      .filter(({ kind }) => kind === runKinds.absent)
      .flatMap((run) => stack.locate(run.lba, run.sectors));
  }

  onRemap(listener: RemapListener): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /**
   * Seals the writable layer, makes it the topmost lower and goes on with an empty one. Reads go on
   * meanwhile; writes wait for the short while in which the layers change places. The stack on disk
   * is the old or the new one, whenever the process stops (see recoverSnapshot). Errors:
   * ERR_SNAPSHOT_*, ERR_UPPER_EXISTS, and those of the file system; one that says so leaves a
   * snapshot that is in effect and is finished when the image is opened again.
   */
  async snapshot(options: SnapshotOptions): Promise<SnapshotReport> {
    const { configPath } = this.#options;
    if (configPath === undefined) {
      throw new ReplaybdError(
        'ERR_SNAPSHOT_CONFIG',
        `device ${this.id}: expected a config.v1.json to write the new stack to, found none. ` +
          'Attach the device by a configuration file.',
        { errno: 'EINVAL' },
      );
    }
    return await this.#rearrange('snapshot', () => takeSnapshot(this, configPath, options));
  }

  /**
   * Makes the disk larger, durably; the new part is zeros. To the present size: does nothing. Reads go
   * on meanwhile, writes wait while the writable layer's index is read again. Stopped half way, the
   * disk has the old size or the new one. Errors: ERR_RESIZE_SHRINK, ERR_RESIZE_BUSY, ERR_UPPER_SIZE,
   * and those of the file system.
   */
  async grow(virtualSizeBytes: number): Promise<void> {
    await this.#rearrange('resize', async () => {
      const { upper, stack } = this.#now;
      const present = upper.virtualSizeBytes;
      if (virtualSizeBytes === present) return;
      if (virtualSizeBytes < present) throw shrinkError(this.id, present, virtualSizeBytes);
      await upper.resize(virtualSizeBytes, () => this.#goOn(this.#generation(stack, upper, null)));
    });
  }

  /** One at a time: each leaves the device's parts different from what it found. */
  async #rearrange<T>(what: 'snapshot' | 'resize', work: () => Promise<T>): Promise<T> {
    if (this.#rearranging !== null) {
      throw new ReplaybdError(
        what === 'snapshot' ? 'ERR_SNAPSHOT_BUSY' : 'ERR_RESIZE_BUSY',
        `device ${this.id}: a snapshot or a resize is under way. Try again later.`,
        { errno: 'EBUSY' },
      );
    }
    const working = work();
    this.#rearranging = working.catch(() => undefined);
    try {
      return await working;
    } finally {
      this.#rearranging = null;
    }
  }

  /**
   * First half of a snapshot: goes on with an empty writable layer, over the present one, of which
   * writers have been shut out and which is flushed. Resolves when no thread uses what came before.
   */
  freeze(upper: WritableUpper): Promise<void> {
    const { stack, upper: former } = this.#now;
    const next = this.#generation(stack, upper, former);
    this.#former.add(former);
    former.retire();
    const told = this.#goOn(next);
    former.letIn();
    return told;
  }

  /** Second half: what was frozen is the topmost lower of `stack` now. Resolves as above. */
  thaw(stack: Stack, blob: Blob): Promise<void> {
    this.#ownBlobs.push(blob);
    return this.#goOn(this.#generation(stack, this.#now.upper, null));
  }

  /** Closes an upper that was replaced; once. */
  async closeFormer(former: WritableUpper): Promise<void> {
    if (this.#former.delete(former)) await former.close();
  }

  /** Flushes and closes the writable layer. No front end may be left. */
  async close(): Promise<void> {
    await this.#rearranging;
    // Mappings go away: a late read finds nothing instead of a fault.
    supersede(this.#now);
    await Promise.all([...this.#former].map((former) => this.closeFormer(former)));
    await this.#now.upper.close();
    await Promise.all(this.#ownBlobs.splice(0).map((blob) => blob.close()));
  }

  #generation(stack: Stack, upper: WritableUpper, frozen: WritableUpper | null): Generation {
    const superseded = new SharedArrayBuffer(4);
    const shared: SharedDevice = {
      stack: stack.map,
      tap: this.#tap,
      upper: upper.map,
      ...(frozen === null ? {} : { frozen: frozen.map }),
      superseded,
    };
    return { stack, upper, shared, superseded, reader: new CachedReader(shared, 0) };
  }

  async #goOn(next: Generation): Promise<void> {
    const before = this.#now;
    this.#now = next;
    supersede(before);
    await Promise.allSettled([...this.#listeners].map(async (listener) => listener(next.shared)));
  }

  async #write(offset: number, data: Uint8Array, fua: boolean): Promise<void> {
    await this.#onUpper(async (upper) => {
      await upper.write(offset, data);
      if (fua) await upper.flush();
    });
  }

  /** Again on the new upper, when a snapshot came in between. */
  async #onUpper(work: (upper: WritableUpper) => Promise<void>): Promise<void> {
    for (;;) {
      const { upper } = this.#now;
      try {
        return await work(upper);
      } catch (error) {
        if (upper === this.#now.upper) throw error;
      }
    }
  }
}

/** Its readers, on any thread, answer nothing any more. */
function supersede({ superseded }: Generation): void {
  Atomics.store(new Int32Array(superseded), 0, 1);
}

function shrinkError(id: string, present: number, wanted: number): ReplaybdError {
  return new ReplaybdError(
    'ERR_RESIZE_SHRINK',
    `device ${id}: expected at least its present ${present} bytes, found ${wanted}. A disk in use ` +
      'is not made smaller: detach it, and run replaybd resize --config.',
    { errno: 'EINVAL' },
  );
}
