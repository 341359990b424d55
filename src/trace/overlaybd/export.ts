import { ReplaybdError } from '../../base/errors.ts';
import { overlaybdTraceLimits, SECTOR_BYTES } from '../../base/limits.ts';
import type { Stack } from '../../image/stack.ts';
import type { Trace, TraceImage } from '../trace.ts';
import { overlaybdTraceOf, type OverlaybdTrace } from './format.ts';

/** A trace for overlaybd, and what of ours it cannot say. */
export interface ExportedTrace {
  readonly trace: OverlaybdTrace;
  /** Bytes of the disk that the image serves from another layer than the recorded one. */
  readonly foreignBytes: number;
}

/**
 * Makes overlaybd's trace of ours: first what opening the layers reads, as a recording of the original
 * begins, then the records in their order. No record is longer than 1 MiB, which is all that the
 * original's replay has room for. Errors: ERR_TRACE_IMAGE when the image has no layer of the trace,
 * ERR_TRACE_LIMIT beyond 1,000,000 records.
 */
export function exportOverlaybdTrace(
  trace: Trace,
  image: Pick<TraceImage, 'layers'>,
  stack: Stack,
): ExportedTrace {
  const layerOf = trace.image.layers.map(({ digest }, i) =>
    // The same layer may occur twice; it is then where it was.
    image.layers[i]?.digest === digest ? i : image.layers.findIndex((one) => one.digest === digest),
  );
  if (layerOf.every((layer) => layer < 0)) {
    throw new ReplaybdError(
      'ERR_TRACE_IMAGE',
      `trace of ${trace.image.manifestDigest ?? 'an image without a manifest'}: expected a layer ` +
        'of the image, found none. Name the image that was recorded.',
    );
  }
  const reads = new ReadList();
  for (const place of ['header', 'trailer', 'index'] as const) {
    for (const [layer, { lsmt }] of stack.layers.entries()) {
      const [header, ...rest] = lsmt.metadataRanges;
      const trailer = rest.pop();
      const range = { header, trailer, index: rest.pop() }[place];
      if (range !== undefined) reads.add(layer, range.offset, range.length);
    }
  }
  reads.break();
  let foreignBytes = 0;
  const { count, lba, sectors, layer } = trace.records;
  for (let i = 0; i < count; i += 1) {
    let served = 0;
    for (const piece of stack.locate(lba[i], sectors[i])) {
      if (piece.layer !== layerOf[layer[i]]) continue;
      reads.add(piece.layer, piece.lsmtOffset, piece.sectors * SECTOR_BYTES);
      served += piece.sectors;
    }
    foreignBytes += (sectors[i] - served) * SECTOR_BYTES;
  }
  return { trace: overlaybdTraceOf(reads.reads), foreignBytes };
}

/** Reads, joined where one goes on where the one before ended, and cut to the longest allowed. */
class ReadList {
  readonly reads: { layer: number; offset: number; length: number }[] = [];
  #joinFrom = 0;

  /** What comes next is not joined to what came before. */
  break(): void {
    this.#joinFrom = this.reads.length;
  }

  add(layer: number, offset: number, length: number): void {
    const { recordBytesMax, recordsMax } = overlaybdTraceLimits;
    for (let done = 0; done < length;) {
      const at = offset + done;
      const last = this.reads.length > this.#joinFrom ? this.reads.at(-1) : undefined;
      const extendsLast = last?.layer === layer && last.offset + last.length === at;
      const room = extendsLast ? recordBytesMax - last.length : 0;
      const take = Math.min(length - done, room > 0 ? room : recordBytesMax);
      if (extendsLast && room > 0) last.length += take;
      else if (this.reads.length < recordsMax) this.reads.push({ layer, offset: at, length: take });
      else throw tooMany(recordsMax);
      done += take;
    }
  }
}

function tooMany(max: number): ReplaybdError {
  return new ReplaybdError(
    'ERR_TRACE_LIMIT',
    `overlaybd trace: at most ${max} records allowed, found more`,
  );
}
