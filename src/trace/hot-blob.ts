import { createHash } from 'node:crypto';
import type { FileHandle } from 'node:fs/promises';
import { ReplaybdError } from '../base/errors.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import { BlobReader } from '../image/blob-reader.ts';
import { BufferedSink, FileSink } from '../image/byte-sink.ts';
import type { Stack, StackLayer } from '../image/stack.ts';
import { hotBytes, hotRanges } from './hot-layout.ts';
import type { Trace, TraceImage, TracePacked } from './trace.ts';

/** What a manifest says the layer is that holds a plan's bytes. */
export const HOT_MEDIA_TYPE = 'application/vnd.replaybd.hot.v1';

/** Bytes that are copied at once. */
const STEP_BYTES = 1024 * 1024;

export interface PackOptions {
  /** Of the image, for messages. */
  readonly name: string;
  /** The opened image, as its traces name it. */
  readonly image: Pick<TraceImage, 'layers'>;
  readonly stack: Stack;
  /** Empty; takes the hot blob. */
  readonly file: FileHandle;
  /** Told how far packing is: every byte is read twice, to be verified and to be copied. */
  readonly onProgress?: (share: number) => void;
  readonly signal?: AbortSignal;
}

/**
 * Writes the hot blob of a trace's plan, and gives the trace that names it. What the records need is
 * decoded before, so that no damaged block is packed. Layers whose blocks and tables do not carry CRCs
 * are left out: nobody could tell whether what comes of them is whole. The same trace and image give
 * the same bytes. Errors: ERR_PACK_PLAN, ERR_PACK_CHECKSUMS, ERR_TRACE_IMAGE, and those of reading layers.
 */
export async function packTrace(trace: Trace, options: PackOptions): Promise<Trace> {
  const layers = matchLayers(trace, options);
  const packedLayers = packable(trace, layers);
  await verifyRecords(trace, options);
  const total = hotBytes(trace.plan, packedLayers);
  const hash = createHash('sha256');
  const sink = new BufferedSink(new FileSink(options.file));
  for (const { layer, offset, length, at } of hotRanges(trace.plan, packedLayers)) {
    const reader = new BlobReader(layers[layer].blob);
    for (let done = 0; done < length; done += STEP_BYTES) {
      options.signal?.throwIfAborted();
      const bytes = await reader.read(offset + done, Math.min(STEP_BYTES, length - done));
      hash.update(bytes);
      await sink.write(bytes);
      options.onProgress?.((1 + (at + done) / total) / 2);
    }
  }
  await sink.flush();
  const digest = `sha256:${hash.digest('hex')}`;
  const packed: TracePacked = { digest, sizeBytes: total, layers: packedLayers };
  return { ...trace, packed };
}

/** By the trace's layer number, the opened layer. */
function matchLayers(
  trace: Trace,
  { name, image, stack }: Pick<PackOptions, 'name' | 'image' | 'stack'>,
): StackLayer[] {
  return trace.image.layers.map(({ digest, sizeBytes }) => {
    const index = image.layers.findIndex((layer) => layer.digest === digest);
    if (index >= 0 && stack.layers[index].blob.sizeBytes === sizeBytes) return stack.layers[index];
    throw new ReplaybdError(
      'ERR_TRACE_IMAGE',
      `${name}: expected the image of the trace, found one without layer ${digest}. ` +
        'Pack for the image that was recorded, or carry the trace over to this one first.',
    );
  });
}

/** Numbers of the layers that are planned and carry CRCs. */
function packable({ plan }: Trace, layers: readonly StackLayer[]): number[] {
  if (plan.count === 0) {
    throw new ReplaybdError(
      'ERR_PACK_PLAN',
      'the trace has no plan, so nobody knows which bytes its accesses need. Give it one: ' +
        '`replaybd trace merge --image`.',
    );
  }
  const planned = new Set(plan.blob);
  const numbers = [...layers.keys()].filter((layer) => {
    const { zfile } = layers[layer].container.facts;
    return planned.has(layer) && zfile !== null && zfile.hasBlockCrc && zfile.hasDigest;
  });
  if (numbers.length > 0) return numbers;
  throw new ReplaybdError(
    'ERR_PACK_CHECKSUMS',
    'none of the planned layers carries CRCs of its blocks and tables, so what is read of a hot blob ' +
      'could not be verified. Build the image with them.',
  );
}

/** Decodes what the records read; reading has damaged blocks fetched again, or throws. */
async function verifyRecords(trace: Trace, options: PackOptions): Promise<void> {
  const { records } = trace;
  const { stack, onProgress, signal } = options;
  for (let i = 0; i < records.count; i += 1) {
    signal?.throwIfAborted();
    for (const { layer, lsmtOffset, sectors } of stack.locate(records.lba[i], records.sectors[i])) {
      await stack.layers[layer].container.bytes.read(lsmtOffset, sectors * SECTOR_BYTES);
    }
    onProgress?.(i / records.count / 2);
  }
}
