/**
 * How fast is a read of local compressed bytes? One thread, ZFile in memory, the kernel alone: no
 * index lookup, no front end. Data: this machine's shared libraries and text files.
 *
 *   node bench/zfile-read.ts [--mib 128] [--seconds 2] [--json]
 */
import { parseArgs } from 'node:util';
import { createReadKernel, kernelKind, readResult } from '../native/kernels.ts';
import { openLayerBlob } from '../src/image/layer-blob.ts';
import type { LayerMap } from '../src/image/stack-map.ts';
import { ZFileWriter, type ZFileWriterOptions } from '../src/image/zfile/writer.ts';
import { MemoryBlob, type MemoryBlobKind } from './support/memory-blob.ts';
import { MemorySink } from './support/memory-sink.ts';
import { mixedData } from './support/real-data.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '128' },
    seconds: { type: 'string', default: '2' },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 1024 * 1024;
const ROUNDS = 5;

interface Row {
  case: string;
  blob: MemoryBlobKind;
  readsPerSecond: number;
  gigabytesPerSecond: number;
}

async function openBlob(
  plain: Buffer,
  kind: MemoryBlobKind,
  options: ZFileWriterOptions,
): Promise<{ blob: MemoryBlob; map: LayerMap }> {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, options);
  await writer.write(plain);
  await writer.finish();
  const blob = new MemoryBlob(sink.bytes, kind);
  await blob.ensure(0, blob.sizeBytes);
  return { blob, map: (await openLayerBlob(blob)).map };
}

/** The best of a few rounds: the machine's slow phases are not the code's. */
function measure(map: LayerMap, bytes: number, order: 'random' | 'sequential'): number {
  const kernel = createReadKernel([map]);
  const dst = Buffer.alloc(bytes);
  const positions = Math.floor(map.lsmtSizeBytes / bytes);
  const roundMs = (Number(values.seconds) * 1000) / ROUNDS;
  let best = 0;
  let state = 1;
  for (let round = 0; round < ROUNDS; round += 1) {
    let reads = 0;
    let elapsedMs = 0;
    const startedMs = performance.now();
    do {
      for (let turn = 0; turn < 1000; turn += 1, reads += 1) {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        const position =
          order === 'random' ? Math.floor((state / 2 ** 32) * positions) : reads % positions;
        kernel.ops.clear();
        kernel.ops.push(0, position * bytes, bytes, 0);
        if (kernel.run(dst) !== readResult.ok) throw new Error(JSON.stringify(kernel.failure));
      }
      elapsedMs = performance.now() - startedMs;
    } while (elapsedMs < roundMs);
    best = Math.max(best, (reads * 1000) / elapsedMs);
  }
  return best;
}

const plain = mixedData(Number(values.mib) * MIB);
const codings: [string, ZFileWriterOptions][] = [
  ['lz4 4K', {}],
  ['lz4 64K', { blockBytes: 65_536 }],
  ['zstd 4K', { algorithm: 'zstd' }],
];
const rows: Row[] = [];
const ratios: Record<string, number> = {};
for (const [name, options] of codings) {
  const kinds: MemoryBlobKind[] = name === 'lz4 4K' ? ['local', 'lazy'] : ['local'];
  for (const kind of kinds) {
    const { blob, map } = await openBlob(plain, kind, options);
    ratios[name] = plain.length / blob.sizeBytes;
    for (const [label, bytes, order] of [
      ['random 4 KiB', 4096, 'random'],
      ['sequential 64 KiB', 65_536, 'sequential'],
    ] as const) {
      const readsPerSecond = measure(map, bytes, order);
      const gigabytesPerSecond = (readsPerSecond * bytes) / 1e9;
      rows.push({ case: `${name}, ${label}`, blob: kind, readsPerSecond, gigabytesPerSecond });
    }
  }
}
if (values.json) {
  const report = { kernel: kernelKind(), plainBytes: plain.length, ratios, rows };
  process.stdout.write(`${JSON.stringify(report)}\n`);
} else {
  process.stdout.write(
    `${kernelKind()} kernel, ${(plain.length / MIB).toFixed(0)} MiB of plain data\n`,
  );
  for (const row of rows) {
    const reads = Math.round(row.readsPerSecond).toString().padStart(9);
    const rate = row.gigabytesPerSecond.toFixed(2);
    process.stdout.write(
      `${row.case.padEnd(28)}${row.blob.padEnd(7)}${reads} reads/s ${rate} GB/s\n`,
    );
  }
}
