import { findSegment } from '../image/lsmt/merged-index.ts';
import { runKinds, type RunKind } from '../image/lsmt/sector-map.ts';
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

/** Sectors of the disk that a device's writable layers have (`data`, `zeroed`) or not (`absent`). */
export interface WritableRun {
  lba: number;
  sectors: number;
  kind: RunKind;
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
  /** The writable layer, and the one that a snapshot has frozen below it. */
  readonly #uppers: readonly SharedUpper[];
  readonly #superseded: Int32Array | null;
  readonly #kernel: ReadKernel;
  readonly #tap: TapProducer;
  /** Bytes of `into` that the ops so far fill. */
  #filled = 0;
  /** Some of the read at hand is in no writable layer. */
  #looksBelow = false;

  /** `ringIndex` is this thread's own ring of the tap. */
  constructor(shared: SharedDevice, ringIndex: number) {
    const { stack, superseded } = shared;
    this.#stack = stack;
    const uppers = [shared.upper, shared.frozen].filter((map) => map !== undefined);
    this.#uppers = uppers.map((map) => new SharedUpper(map));
    this.upper = this.#uppers.at(0) ?? null;
    this.#superseded = superseded === undefined ? null : new Int32Array(superseded);
    this.#kernel = createReadKernel([...stack.layers, ...uppers.map(dataFileLayer)]);
    this.#tap = new TapProducer(shared.tap, ringIndex);
  }

  /** What stopped the last read that returned false, unless the reader is retired. */
  get failure(): ReadFailure {
    return this.#kernel.failure;
  }

  /** The device has changed: this reader answers nothing any more, see BlockDevice.onRemap. */
  get isRetired(): boolean {
    return this.#superseded !== null && Atomics.load(this.#superseded, 0) !== 0;
  }

  /**
   * Fills `into` from byte `offset` of the device; false when some bytes are not local or not good.
   * The tap hears of reads that layers below a writable one were asked for.
   */
  readCached(offset: number, into: Uint8Array): boolean {
    const hit = this.readUntapped(offset, into);
    if (this.#looksBelow) this.#tap.push(offset, into.length, hit);
    return hit;
  }

  /** As readCached, for the second try of a read that the tap has seen already. */
  readUntapped(offset: number, into: Uint8Array): boolean {
    const lba = offset / SECTOR_BYTES;
    const lbaEnd = (offset + into.length) / SECTOR_BYTES;
    this.#kernel.ops.clear();
    this.#filled = 0;
    this.#looksBelow = false;
    if (this.isRetired || !this.#add(0, lba, lbaEnd, into)) return false;
    return this.#kernel.run(into) === 0;
  }

  /** What of a range is in a writable layer, and what is not, in order. */
  writableRuns(lba: number, sectors: number): WritableRun[] {
    const runs: WritableRun[] = [];
    this.#addRuns(0, lba, sectors, runs);
    return runs;
  }

  #addRuns(level: number, lba: number, sectors: number, runs: WritableRun[]): void {
    if (level === this.#uppers.length) {
      runs.push({ lba, sectors, kind: runKinds.absent });
      return;
    }
    const map = this.#uppers[level].sectors;
    for (let done = 0; done < sectors;) {
      const count = map.find(lba + done, sectors - done);
      const { kind } = map;
      if (kind === runKinds.absent) this.#addRuns(level + 1, lba + done, count, runs);
      else runs.push({ lba: lba + done, sectors: count, kind });
      done += count;
    }
  }

  /** Ops for [lba, lbaEnd) from the writable layers at and below `level`, and from the others. */
  #add(level: number, lba: number, lbaEnd: number, into: Uint8Array): boolean {
    if (level === this.#uppers.length) return this.#addLowers(lba, lbaEnd, into);
    const upper = this.#uppers[level];
    const map = upper.sectors;
    for (let at = lba; at < lbaEnd;) {
      const sectors = map.find(at, lbaEnd - at);
      if (map.kind === runKinds.absent) {
        if (!this.#add(level + 1, at, at + sectors, into)) return false;
      } else {
        if (!this.#hasRoom(into)) return false;
        const isZeroed = map.kind === runKinds.zeroed;
        const layer = isZeroed ? ZERO_LAYER : this.#stack.layers.length + level;
        const source = isZeroed ? 0 : upper.dataSector(at) * SECTOR_BYTES;
        this.#kernel.ops.push(layer, source, sectors * SECTOR_BYTES, this.#filled);
        this.#filled += sectors * SECTOR_BYTES;
      }
      at += sectors;
    }
    return true;
  }

  /** Ops for [lba, lbaEnd) from the merged layers. */
  #addLowers(lba: number, lbaEnd: number, into: Uint8Array): boolean {
    const { start, sectors, mapped, layer, segmentCount } = this.#stack.index;
    const ops = this.#kernel.ops;
    this.#looksBelow = true;
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
