import type { StackLayer } from '../image/stack.ts';
import type { PlanResolver } from './build-plan.ts';
import type { Trace, TraceImage } from './trace.ts';

/** An opened image that a trace is held against. */
export interface TraceTarget {
  readonly image: TraceImage;
  readonly stack: PlanResolver & {
    readonly layers: readonly Pick<StackLayer, 'metadataRanges'>[];
  };
}

/** A part of a record, in order. */
export interface RecordPart {
  readonly lba: number;
  readonly sectors: number;
  /** The image serves it from the layer that the record names. */
  readonly isSame: boolean;
}

/** A record's parts by whether the image still serves them from the same layer: together all of it. */
export function* partsOfRecord(
  { image, records }: Pick<Trace, 'image' | 'records'>,
  index: number,
  target: TraceTarget,
): Generator<RecordPart, void, undefined> {
  const { digest } = image.layers[records.layer[index]];
  const end = records.lba[index] + records.sectors[index];
  let at = records.lba[index];
  for (const piece of target.stack.locate(at, records.sectors[index])) {
    if (target.image.layers[piece.layer].digest !== digest) continue;
    if (piece.lba > at) yield { lba: at, sectors: piece.lba - at, isSame: false };
    yield { lba: piece.lba, sectors: piece.sectors, isSame: true };
    at = piece.lba + piece.sectors;
  }
  if (at < end) yield { lba: at, sectors: end - at, isSame: false };
}
