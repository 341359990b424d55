import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import fc from 'fast-check';
import type { Blob } from '../../src/blob/blob.ts';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { openStack, type Stack } from '../../src/image/stack.ts';
import { blobRange } from '../../src/image/layer-blob.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { exportOverlaybdTrace } from '../../src/trace/overlaybd/export.ts';
import {
  decodeOverlaybdTrace,
  encodeOverlaybdTrace,
  overlaybdTraceOf,
  readsOf,
} from '../../src/trace/overlaybd/format.ts';
import { importOverlaybdTrace, traceOfRanges } from '../../src/trace/overlaybd/import.ts';
import { describeWorkload, type Trace, type TraceImage } from '../../src/trace/trace.ts';
import { fixtures, removeFolder, unpackFixtures } from '../image/lsmt-support.ts';
import { digestOfText } from './synthetic.ts';

// Goal: overlaybd's records and ours say the same bytes of the same image.
// Method: a stack and a recording of the original; what its reads cover is computed granule by granule
// from the layers' own index and compared with the plan and the records of the trace made of it.

let folder = '';
let blobs: Blob[] = [];
let stack: Stack;
let image: TraceImage;
const workload = describeWorkload(['test'], []);
const recording = readFileSync(join(fixtures, '../trace/trace'));

before(async () => {
  folder = unpackFixtures();
  const files = [
    join(fixtures, 'stack3/layer0.lz4-4k.tar'),
    join(fixtures, 'stack3/layer1.zstd-16k.obd'),
    join(folder, 'lsmt/stack3/layer2.lsmt'),
  ];
  blobs = await Promise.all(files.map((path) => openLocalBlob(path)));
  stack = await openStack(blobs);
  image = {
    manifestDigest: null,
    virtualSizeBytes: stack.map.virtualSizeBytes,
    layers: blobs.map(({ sizeBytes }, i) => ({
      digest: digestOfText(`layer ${i}`),
      sizeBytes,
      diffId: null,
    })),
  };
});
after(async () => {
  await Promise.all(blobs.map((blob) => blob.close()));
  removeFolder(folder);
});

/** Every granule of the blobs that a plan has. */
function plannedGranules({ plan }: Trace): Set<string> {
  const granules = new Set<string>();
  for (let i = 0; i < plan.count; i += 1) {
    for (let at = plan.offset[i]; at < plan.offset[i] + plan.length[i]; at += 4096) {
      granules.add(`${plan.blob[i]}/${at / 4096}`);
    }
  }
  return granules;
}

/** Every sector of the disk that a trace's records have. */
function recordedSectors({ records }: Trace): number[] {
  const sectors = new Set<number>();
  for (let i = 0; i < records.count; i += 1) {
    for (let at = 0; at < records.sectors[i]; at += 1) sectors.add(records.lba[i] + at);
  }
  return [...sectors].sort((a, b) => a - b);
}

test("the original's recording becomes a trace of the reads that were made", () => {
  const source = decodeOverlaybdTrace(recording);
  const imported = importOverlaybdTrace(source, { image, stack, workload });
  assert.equal(imported.reads, 61);
  assert.equal(imported.foreignReads, 0);

  // The list of reads of the disk that the original served while it recorded.
  const lines = readFileSync(join(fixtures, '../trace/reads.txt'), 'utf8').trim().split('\n');
  const expected = new Set<number>();
  for (const line of lines) {
    const [offset, length] = line.split(' ').map(Number);
    for (const piece of stack.locate(offset / 512, length / 512)) {
      for (let at = 0; at < piece.sectors; at += 1) expected.add(piece.lba + at);
    }
  }
  assert.deepEqual(
    recordedSectors(imported.trace),
    [...expected].sort((a, b) => a - b),
  );

  const granules = plannedGranules(imported.trace);
  for (const { layer, offset, length } of readsOf(source)) {
    const range = blobRange(stack.map.layers[layer], offset, length);
    const last = Math.floor((range.offset + range.length - 1) / 4096);
    for (let at = Math.floor(range.offset / 4096); at <= last; at += 1) {
      assert.ok(granules.has(`${layer}/${at}`), `granule ${at} of layer ${layer} is planned`);
    }
  }
  assert.deepEqual(decodeTrace(encodeTrace(imported.trace)), imported.trace, 'it is a sound file');
});

const ranges = fc.array(
  fc
    .record({ lba: fc.nat(49_151), sectors: fc.integer({ min: 1, max: 4096 }) })
    .map(({ lba, sectors }) => ({
      offset: lba * 512,
      length: Math.min(sectors, 49_152 - lba) * 512,
    })),
  { maxLength: 12 },
);

test('what is exported and imported again covers the same bytes, in the same order', () => {
  fc.assert(
    fc.property(ranges, (list) => {
      const trace = traceOfRanges(list, { image, stack, workload });
      const { trace: exported, foreignBytes } = exportOverlaybdTrace(trace, image, stack);
      assert.equal(foreignBytes, 0);
      const bytes = encodeOverlaybdTrace(exported);
      assert.deepEqual(encodeOverlaybdTrace(exported), bytes);
      const { trace: again } = importOverlaybdTrace(decodeOverlaybdTrace(bytes), {
        image,
        stack,
        workload,
      });
      assert.deepEqual(recordedSectors(again), recordedSectors(trace));
      assert.deepEqual(plannedGranules(again), plannedGranules(trace));
      assert.deepEqual(Array.from(again.records.lba), Array.from(trace.records.lba));
    }),
    { numRuns: 40 },
  );
});

test('a recording begins as one of the original: headers, trailers, indexes', () => {
  const trace = traceOfRanges([], { image, stack, workload });
  const exported = exportOverlaybdTrace(trace, image, stack).trace;
  const theirs = [...readsOf(decodeOverlaybdTrace(recording))].slice(0, 9);
  assert.deepEqual([...readsOf(exported)], theirs);
});

test('no exported read is longer than the 1 MiB that the original has room for', () => {
  const whole = { offset: 0, length: stack.map.virtualSizeBytes };
  const trace = traceOfRanges([whole], { image, stack, workload });
  const exported = exportOverlaybdTrace(trace, image, stack).trace;
  for (const { length } of readsOf(exported)) assert.ok(length <= 2 ** 20);
});

test('reads of other images, and behind the end of a layer, do no harm', () => {
  const size = stack.map.layers[0].lsmtSizeBytes;
  const source = overlaybdTraceOf([
    { layer: 3, offset: 0, length: 4096 },
    { layer: 4_000_000_000, offset: 0, length: 4096 },
    { layer: 0, offset: size, length: 512 },
    { layer: 0, offset: 2 ** 52, length: 2 ** 52 },
    { layer: 0, offset: 0, length: 2 ** 52 },
    { layer: 0, offset: 4097, length: 1 },
  ]);
  const { trace, reads, foreignReads } = importOverlaybdTrace(source, { image, stack, workload });
  assert.deepEqual({ reads, foreignReads }, { reads: 2, foreignReads: 4 });
  assert.deepEqual(decodeTrace(encodeTrace(trace)), trace);
  const planned = [...plannedGranules(trace)].filter((granule) => granule.startsWith('0/')).length;
  assert.ok(planned <= Math.ceil(image.layers[0].sizeBytes / 4096));
});

test('a trace that would keep us busy is refused', () => {
  const length = stack.map.layers[0].lsmtSizeBytes;
  const reads = Array.from({ length: Math.ceil(2 ** 36 / length) + 1 }, () => {
    return { layer: 0, offset: 0, length };
  });
  const trace = overlaybdTraceOf(reads);
  assert.throws(() => importOverlaybdTrace(trace, { image, stack, workload }), {
    code: 'ERR_TRACE_LIMIT',
  });
});

test('a trace is exported for an image that has its layers, in whatever order', () => {
  const whole = { offset: 0, length: 2 ** 20 };
  const trace = traceOfRanges([whole], { image, stack, workload });
  const strangers = image.layers.map((layer) => ({ ...layer, digest: digestOfText(layer.digest) }));
  assert.throws(
    () => exportOverlaybdTrace({ ...trace, image: { ...image, layers: strangers } }, image, stack),
    {
      code: 'ERR_TRACE_IMAGE',
    },
  );
  // The records' layers are told by digest, not by number.
  const renumbered: Trace = {
    ...trace,
    image: { ...image, layers: image.layers.toReversed() },
    records: { ...trace.records, layer: trace.records.layer.map((layer) => 2 - layer) },
  };
  assert.deepEqual(
    exportOverlaybdTrace(renumbered, image, stack),
    exportOverlaybdTrace(trace, image, stack),
  );
  const one = { ...image, layers: [image.layers[0], strangers[1], strangers[2]] };
  const { foreignBytes } = exportOverlaybdTrace({ ...trace, image: one }, image, stack);
  assert.ok(foreignBytes > 0, 'bytes of layers that are not there are told');
});
