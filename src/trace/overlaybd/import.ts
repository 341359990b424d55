import { overlaybdTraceLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { blobRange } from '../../image/layer-blob.ts';
import type { Stack } from '../../image/stack.ts';
import { PlanBuilder } from '../build-plan.ts';
import { Recorder } from '../recorder.ts';
import { tooLarge } from '../trace-errors.ts';
import type { Trace, TraceImage, TraceWorkload } from '../trace.ts';
import { readsOf, type OverlaybdTrace } from './format.ts';
import { InverseIndex } from './inverse-index.ts';

/** The image that something foreign is made a trace of. */
export interface ImportTarget {
  readonly image: TraceImage;
  readonly stack: Stack;
  readonly workload: TraceWorkload;
}

/** A trace, and what of its source it does not hold. */
export interface ImportedTrace {
  readonly trace: Trace;
  /** Reads that were taken over, as far as they lie in their layer. */
  readonly reads: number;
  /** Reads of layers that the image does not have, or wholly behind a layer's end. */
  readonly foreignReads: number;
}

/**
 * Makes our trace of overlaybd's. Their records are bytes of layers' LSMT files: where the merged
 * disk shows them they become records; headers, indexes and hidden data become parts of the plan
 * alone. They have no times: read k gets k microseconds, which keeps the order. Errors:
 * ERR_TRACE_LIMIT when the reads have more than 64 GiB in all.
 */
export function importOverlaybdTrace(source: OverlaybdTrace, target: ImportTarget): ImportedTrace {
  const { image, stack } = target;
  const builder = new TraceBuilder(target);
  const inverse = new InverseIndex(stack.map.index);
  let reads = 0;
  let foreignReads = 0;
  for (const { layer, offset, length } of readsOf(source)) {
    const sizeBytes = layer < image.layers.length ? stack.map.layers[layer].lsmtSizeBytes : 0;
    const inside = Math.min(length, sizeBytes - offset);
    if (inside <= 0) {
      foreignReads += 1;
      continue;
    }
    reads += 1;
    builder.next(inside);
    builder.plan(layer, blobRange(stack.map.layers[layer], offset, inside));
    for (const range of inverse.locate(layer, offset, inside)) builder.access(range);
  }
  return { trace: builder.finish(), reads, foreignReads };
}

/**
 * Makes a trace of parts of the disk, in the order they are wanted; a sector counts once. Errors:
 * ERR_TRACE_LIMIT, as above.
 */
export function traceOfRanges(ranges: Iterable<ByteRange>, target: ImportTarget): Trace {
  const { stack } = target;
  const builder = new TraceBuilder(target);
  for (const range of ranges) {
    builder.next(range.length);
    builder.access(range);
    const pieces = stack.locate(range.offset / SECTOR_BYTES, range.length / SECTOR_BYTES);
    for (const piece of pieces) builder.plan(piece.layer, stack.blobRangeOf(piece));
  }
  return builder.finish();
}

/** Puts records and plan of a trace without times side by side. */
class TraceBuilder {
  readonly #target: ImportTarget;
  readonly #recorder: Recorder;
  readonly #plan: PlanBuilder;
  #timeUs = 0;
  #bytes = 0;

  constructor(target: ImportTarget) {
    const { image, stack } = target;
    this.#target = target;
    this.#recorder = new Recorder({ locate: (lba, sectors) => stack.locate(lba, sectors) });
    this.#plan = new PlanBuilder(image.layers);
    for (const [layer, { metadataRanges }] of stack.layers.entries()) {
      for (const range of metadataRanges) this.#plan.add(layer, range, 0);
    }
  }

  /** What follows was read after all that came before, and has so many bytes. */
  next(bytes: number): void {
    this.#timeUs += 1;
    this.#bytes += bytes;
    const { importBytesMax } = overlaybdTraceLimits;
    if (this.#bytes > importBytesMax) {
      throw tooLarge('bytes of all reads together', importBytesMax, this.#bytes);
    }
  }

  access({ offset, length }: ByteRange): void {
    this.#recorder.access(this.#timeUs, offset, length);
  }

  plan(layer: number, range: ByteRange): void {
    this.#plan.add(layer, range, this.#timeUs);
  }

  finish(): Trace {
    const { image, workload } = this.#target;
    return {
      image,
      workload,
      recording: {
        startedAtMs: 0,
        durationUs: this.#timeUs,
        endReason: 'request',
        deviceSizeBytes: image.virtualSizeBytes,
      },
      runs: 1,
      records: this.#recorder.records(),
      plan: this.#plan.finish(),
    };
  }
}
