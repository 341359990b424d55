import { GRANULE_BYTES, traceLimits } from '../base/limits.ts';
import { alignToGranules, type ByteRange } from '../base/range.ts';
import { SparseBitmap } from '../base/sparse-bitmap.ts';
import type { ServedPiece } from './recorder.ts';
import { warmTimeUs, type TraceLayer, type TracePlan, type TraceRecords } from './trace.ts';

/** A served piece with the byte of its layer's LSMT file where it begins. */
export interface LocatedPiece extends ServedPiece {
  readonly lsmtOffset: number;
}

/** What a plan needs of an opened image; a `Stack` is one. */
export interface PlanResolver {
  locate(lba: number, sectors: number): readonly LocatedPiece[];
  /** The compressed blob bytes behind a piece. */
  blobRangeOf(piece: LocatedPiece): ByteRange;
}

export interface PlanInput {
  readonly records: TraceRecords;
  readonly layers: readonly TraceLayer[];
  readonly resolver: PlanResolver;
  /** By layer: the ranges that opening it reads, in that order. */
  readonly metadataRanges: readonly (readonly ByteRange[])[];
}

/** Ranges due this close together and adjacent in their blob become one. */
export const JOIN_US_MAX = 2000;

/**
 * The blob ranges that a trace's records need, in whole granules, each granule once, in the order
 * of first access; before them, what opening the layers needs. They are due when a warm run needs
 * them, whatever the recorded one waited for. Records that the image serves from
 * another layer than they say are left out, and so is what lies beyond 1,000,000 ranges: see isTruncated.
 */
export function buildPlan(input: PlanInput): TracePlan {
  const { records, layers, resolver, metadataRanges } = input;
  const builder = new PlanBuilder(layers);
  for (const [layer, ranges] of metadataRanges.entries()) {
    for (const range of ranges) builder.add(layer, range, 0);
  }
  for (let i = 0; i < records.count; i += 1) {
    for (const piece of resolver.locate(records.lba[i], records.sectors[i])) {
      if (piece.layer !== records.layer[i]) continue;
      builder.add(piece.layer, resolver.blobRangeOf(piece), warmTimeUs(records, i));
    }
  }
  return builder.finish();
}

/** Collects ranges in the order they are due; each granule counts where it first occurs. */
export class PlanBuilder {
  readonly #layers: readonly TraceLayer[];
  readonly #planned: readonly SparseBitmap[];
  readonly #blob: number[] = [];
  readonly #offset: number[] = [];
  readonly #length: number[] = [];
  readonly #dueUs: number[] = [];

  constructor(layers: readonly TraceLayer[]) {
    this.#layers = layers;
    this.#planned = layers.map(() => new SparseBitmap());
  }

  add(layer: number, range: ByteRange, dueUs: number): void {
    const { sizeBytes } = this.#layers[layer];
    const aligned = alignToGranules(range, sizeBytes);
    if (aligned.length <= 0) return;
    const first = aligned.offset / GRANULE_BYTES;
    const granules = Math.ceil(aligned.length / GRANULE_BYTES);
    this.#planned[layer].add(first, granules, (start, count) => {
      const offset = start * GRANULE_BYTES;
      const end = Math.min((start + count) * GRANULE_BYTES, sizeBytes);
      this.#push(layer, offset, end - offset, dueUs);
    });
  }

  finish(): TracePlan {
    return {
      count: this.#blob.length,
      blob: Uint16Array.from(this.#blob),
      offset: Float64Array.from(this.#offset),
      length: Float64Array.from(this.#length),
      dueUs: Float64Array.from(this.#dueUs),
    };
  }

  #push(layer: number, offset: number, length: number, dueUs: number): void {
    const last = this.#blob.length - 1;
    const extendsLast =
      last >= 0 &&
      this.#blob[last] === layer &&
      this.#offset[last] + this.#length[last] === offset &&
      dueUs - this.#dueUs[last] <= JOIN_US_MAX;
    if (extendsLast) {
      this.#length[last] += length;
      return;
    }
    if (this.#blob.length >= traceLimits.planRangesMax) return;
    this.#blob.push(layer);
    this.#offset.push(offset);
    this.#length.push(length);
    this.#dueUs.push(dueUs);
  }
}
