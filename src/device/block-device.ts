import type { UpperMap } from '../image/lsmt/upper-map.ts';
import type { StackMap } from '../image/stack-map.ts';

/**
 * A virtual disk as front ends see it. Offsets and lengths are bytes, whole sectors, and inside the
 * device; front ends check what guests ask before they call.
 */
export interface BlockDevice {
  /** Unique in this process; used in paths, metrics and logs. */
  readonly id: string;
  readonly virtualSizeBytes: number;
  readonly readOnly: boolean;

  /**
   * Fills `into` (whole) from local bytes and returns true, or returns false when some are not
   * local; `into` is then undefined. Synchronous, allocates nothing, and tells the tap by itself.
   */
  readCached(offset: number, into: Uint8Array): boolean;

  /**
   * Fills `into` (whole), fetching what is missing. Rejects with a ReplaybdError whose `errno` is
   * what the guest should see.
   */
  read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void>;

  /**
   * Which parts of the range hold data, from indexes alone (nothing is fetched). The extents start
   * at `offset`, touch, and may end before the range does, so that one call stays bounded. Absent
   * when the device cannot tell; everything then counts as data.
   */
  extents?(offset: number, length: number): DeviceExtent[];

  /** What a front end's worker threads need to serve hits on their own. */
  readonly shared: SharedDevice;

  /** Absent on a read-only device; a front end then answers EROFS. */
  readonly writer?: DeviceWriter;

  /**
   * Calls `listener` with every new `shared`, and returns what ends that; absent where `shared`
   * never changes. From the moment a device changes, old maps answer no read (`readCached` gives
   * false, `CachedReader.isRetired` says why) and the layer that was replaced takes no write
   * (`SharedUpper.write` gives false), so that a thread which still has them hands everything to the
   * main thread: nobody has to be paused. Old mappings stay until the listeners' promises resolve,
   * which is to say that none of their threads uses what came before.
   */
  onRemap?(listener: RemapListener): () => void;
}

export type RemapListener = (shared: SharedDevice) => void | Promise<void>;

/** A run of bytes that is alike. */
export interface DeviceExtent {
  offset: number;
  length: number;
  /** No layer has the bytes, or a layer zeroed them: they read as zeros. */
  zero: boolean;
}

/**
 * Changes a writable device. Promises reject with a ReplaybdError whose `errno` the guest should
 * see: ENOSPC past the device's end or when the disk is full, EINVAL for parts of sectors, EIO.
 */
export interface DeviceWriter {
  /** With `fua`, the data is durable when the promise resolves. Fetches nothing. */
  write(offset: number, data: Uint8Array, fua: boolean): Promise<void>;
  /** Resolves when all that was acknowledged before the call is durable. */
  flush(): Promise<void>;
  /** The range reads as zeros afterwards: guests reach this by punching holes. */
  discard(offset: number, length: number): Promise<void>;
  writeZeroes(offset: number, length: number): Promise<void>;
}

/** Plain data for postMessage; `CachedReader` in device/cached-reader.ts makes reads of it. */
export interface SharedDevice {
  readonly stack: StackMap;
  readonly tap: TapMap;
  /** Of a writable device: threads read and write it by themselves, see SharedUpper. */
  readonly upper?: UpperMap;
  /** The layer below it, which a snapshot is making a lower of and nobody writes any more. */
  readonly frozen?: UpperMap;
  /** Of a writable device: word 0 is 1 as soon as it has another `shared`. */
  readonly superseded?: SharedArrayBuffer;
}

/**
 * The recorder's tap: a ring in shared memory per reading thread, which the main thread drains.
 * device/tap.ts owns its layout.
 */
export interface TapMap {
  /** One ring a thread; ring 0 is the main thread's. A thread uses the ring it was given. */
  readonly rings: readonly SharedArrayBuffer[];
  /** Rung by producers; absent where the rings are looked at anyway. */
  readonly bell?: TapBell;
}

/**
 * Says that a tap's rings have entries. The words of all devices lie side by side, so that looking
 * whether anything happened takes no more time for a thousand of them.
 */
export interface TapBell {
  /** int32 each. */
  readonly words: SharedArrayBuffer;
  /** The device's word: 1 from an entry until somebody looks for entries. */
  readonly index: number;
}
