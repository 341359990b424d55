import { findSegment } from '../image/lsmt/merged-index.ts';
import { runKinds } from '../image/lsmt/sector-map.ts';
import { SharedUpper } from '../image/lsmt/shared-upper.ts';
import type { UpperMap } from '../image/lsmt/upper-map.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import { ZERO_LAYER, type LayerMap, type StackMap } from '../image/stack-map.ts';
import {
  createReadKernel,
  OPS_MAX,
  type ReadFailure,
  type ReadKernel,
} from '../../native/kernels.ts';
import type { SharedDevice } from './block-device.ts';
import { TapProducer } from './tap.ts';

/** Sectors of the disk. */
export interface SectorRun {
  lba: number;
  sectors: number;
}

/**
 * Answers reads of local bytes, on whichever thread it was made: index lookup here, presence
 * checks, CRC and decoding in one kernel call a read. Allocates nothing once constructed.
 *
 * A writable layer lies over the merged ones: its sectors are looked up first, its data file is one
 * more layer to the kernel, and only what it does not have is looked for below.
 */
export class CachedReader {
  /** The writable layer as this thread has it; null on a read-only device. */
  readonly upper: SharedUpper | null;
  readonly #stack: StackMap;
  readonly #kernel: ReadKernel;
  readonly #tap: TapProducer;
  /** Bytes of `into` that the ops so far fill. */
  #filled = 0;
  /** Some of the read at hand is not in the writable layer. */
  #looksBelow = false;

  /** `ringIndex` is this thread's own ring of the tap. */
  constructor(shared: SharedDevice, ringIndex: number) {
    const { stack, upper } = shared;
    this.#stack = stack;
    this.upper = upper === undefined ? null : new SharedUpper(upper);
    this.#kernel = createReadKernel(
      upper === undefined ? stack.layers : [...stack.layers, dataFileLayer(upper)],
    );
    this.#tap = new TapProducer(shared.tap, ringIndex);
  }

  /** What stopped the last read that returned false, unless the reader is retired. */
  get failure(): ReadFailure {
    return this.#kernel.failure;
  }

  /** The device has changed: this reader answers nothing any more, see BlockDevice.onRemap. */
  get isRetired(): boolean {
    return this.upper !== null && this.upper.isRetired;
  }

  /**
   * Fills `into` from byte `offset` of the device; false when some bytes are not local or not good.
   * The tap hears of what layers below a writable one were asked for.
   */
  readCached(offset: number, into: Uint8Array): boolean {
    const hit = this.readUntapped(offset, into);
    if (this.#looksBelow) this.#tap.push(offset, into.length, hit);
    return hit;
  }

  /** As readCached, for the second try of a read that the tap has seen already. */
  readUntapped(offset: number, into: Uint8Array): boolean {
    const { upper } = this;
    const lba = offset / SECTOR_BYTES;
    const lbaEnd = (offset + into.length) / SECTOR_BYTES;
    this.#kernel.ops.clear();
    this.#filled = 0;
    this.#looksBelow = upper === null;
    const isReady =
      upper === null
        ? this.#addLowers(lba, lbaEnd, into)
        : !upper.isRetired && this.#addAll(upper, lba, lbaEnd, into);
    return isReady && this.#kernel.run(into) === 0;
  }

  /** What of a range the writable layer leaves to those below, in order. */
  lowerRuns(lba: number, sectors: number): SectorRun[] {
    if (this.upper === null) return [{ lba, sectors }];
    const map = this.upper.sectors;
    const runs: SectorRun[] = [];
    for (let done = 0; done < sectors;) {
      const count = map.find(lba + done, sectors - done);
      if (map.kind === runKinds.absent) runs.push({ lba: lba + done, sectors: count });
      done += count;
    }
    return runs;
  }

  #addAll(upper: SharedUpper, lba: number, lbaEnd: number, into: Uint8Array): boolean {
    const { ops } = this.#kernel;
    const map = upper.sectors;
    for (let at = lba; at < lbaEnd;) {
      const sectors = map.find(at, lbaEnd - at);
      if (map.kind === runKinds.absent) {
        this.#looksBelow = true;
        if (!this.#addLowers(at, at + sectors, into)) return false;
      } else {
        if (!this.#hasRoom(into)) return false;
        const length = sectors * SECTOR_BYTES;
        const layer = map.kind === runKinds.zeroed ? ZERO_LAYER : this.#stack.layers.length;
        const source = map.kind === runKinds.zeroed ? 0 : upper.dataSector(at) * SECTOR_BYTES;
        ops.push(layer, source, length, this.#filled);
        this.#filled += length;
      }
      at += sectors;
    }
    return true;
  }

  /** Ops for [lba, lbaEnd) from the merged layers. */
  #addLowers(lba: number, lbaEnd: number, into: Uint8Array): boolean {
    const { start, sectors, mapped, layer, segmentCount } = this.#stack.index;
    const ops = this.#kernel.ops;
    let filled = this.#filled;
    for (let segment = findSegment(this.#stack.index, lba); lba < lbaEnd; segment += 1) {
      const segmentStart = segment < segmentCount ? Math.min(start[segment], lbaEnd) : lbaEnd;
      if (!this.#hasRoom(into)) return false;
      if (segmentStart > lba) {
        const hole = (segmentStart - lba) * SECTOR_BYTES;
        ops.push(ZERO_LAYER, 0, hole, filled);
        filled += hole;
        lba = segmentStart;
        if (lba === lbaEnd) break;
      }
      const skipped = lba - start[segment];
      const take = Math.min(sectors[segment] - skipped, lbaEnd - lba);
      const source = layer[segment] === ZERO_LAYER ? 0 : (mapped[segment] + skipped) * SECTOR_BYTES;
      ops.push(layer[segment], source, take * SECTOR_BYTES, filled);
      filled += take * SECTOR_BYTES;
      lba += take;
    }
    this.#filled = filled;
    return true;
  }

  /** Room for two more ops; runs those there are when there is none. False when that fails. */
  #hasRoom(into: Uint8Array): boolean {
    const { ops } = this.#kernel;
    if (ops.count + 2 <= OPS_MAX) return true;
    if (this.#kernel.run(into) !== 0) return false;
    ops.clear();
    return true;
  }
}

/** A writable layer's data file as the kernel takes it: bytes, of which the index knows which. */
function dataFileLayer({ address, mappedBytes }: UpperMap): LayerMap {
  return {
    blob: { address, sizeBytes: mappedBytes, presence: null },
    codec: 'raw',
    payloadOffset: 0,
    lsmtSizeBytes: mappedBytes,
    zfile: null,
  };
}
