import { findSegment } from '../image/lsmt/merged-index.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import { ZERO_LAYER, type StackMap } from '../image/stack-map.ts';
import {
  createReadKernel,
  OPS_MAX,
  type ReadFailure,
  type ReadKernel,
} from '../../native/kernels.ts';
import type { SharedDevice } from './block-device.ts';
import { TapProducer } from './tap.ts';

/**
 * Answers reads of local bytes, on whichever thread it was made: index lookup here, presence
 * checks, CRC and decoding in one kernel call a read. Allocates nothing once constructed.
 */
export class CachedReader {
  readonly #stack: StackMap;
  readonly #kernel: ReadKernel;
  readonly #tap: TapProducer;

  /** `ringIndex` is this thread's own ring of the tap. */
  constructor(shared: SharedDevice, ringIndex: number) {
    this.#stack = shared.stack;
    this.#kernel = createReadKernel(shared.stack.layers);
    this.#tap = new TapProducer(shared.tap, ringIndex);
  }

  /** What stopped the last read that returned false. */
  get failure(): ReadFailure {
    return this.#kernel.failure;
  }

  /** Fills `into` from byte `offset` of the device; false when some bytes are not local or not good. */
  readCached(offset: number, into: Uint8Array): boolean {
    const hit = this.readUntapped(offset, into);
    this.#tap.push(offset, into.length, hit);
    return hit;
  }

  /** As readCached, for the second try of a read that the tap has seen already. */
  readUntapped(offset: number, into: Uint8Array): boolean {
    const { start, sectors, mapped, layer, segmentCount } = this.#stack.index;
    const ops = this.#kernel.ops;
    const lbaEnd = (offset + into.length) / SECTOR_BYTES;
    let lba = offset / SECTOR_BYTES;
    let filled = 0;
    ops.clear();
    for (let segment = findSegment(this.#stack.index, lba); lba < lbaEnd; segment += 1) {
      const segmentStart = segment < segmentCount ? Math.min(start[segment], lbaEnd) : lbaEnd;
      if (ops.count + 2 > OPS_MAX) {
        if (this.#kernel.run(into) !== 0) return false;
        ops.clear();
      }
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
    return this.#kernel.run(into) === 0;
  }
}
