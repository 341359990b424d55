/**
 * How fast does a ZFile come about? This machine's shared libraries and text files, LZ4 and zstd in
 * 4 KiB blocks with CRCs, on one thread and on more; from memory to nowhere, so that no disk counts.
 *
 *   node bench/zfile-compress.ts [--mib 128] [--rounds 5] [--threads 1,2] [--json]
 */
import { parseArgs } from 'node:util';
import { createBlockCompressor } from '../native/block-compressor.ts';
import type { PatchableSink } from '../src/image/byte-sink.ts';
import { ZFileWriter, type ZFileWriterOptions } from '../src/image/zfile/writer.ts';
import { mixedData } from './support/real-data.ts';
import { formatTable, machineFacts } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '128' },
    rounds: { type: 'string', default: '5' },
    threads: { type: 'string', default: '1,2' },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 1024 * 1024;
/** Handed over at a time, as a reader of files would. */
const CHUNK_BYTES = MIB;

const nowhere: PatchableSink = {
  write: async () => undefined,
  patch: async () => undefined,
};

async function compress(plain: Buffer, options: ZFileWriterOptions): Promise<number> {
  const writer = new ZFileWriter(nowhere, options);
  for (let at = 0; at < plain.length; at += CHUNK_BYTES) {
    await writer.write(plain.subarray(at, at + CHUNK_BYTES));
  }
  return (await writer.finish()).storedBytes;
}

const plain = mixedData(Number(values.mib) * MIB);
const rows = [];
for (const algorithm of ['lz4', 'zstd'] as const) {
  let oneThread = 0;
  for (const threads of values.threads.split(',').map(Number)) {
    // The best of some rounds: the machine's slow phases are not the code's.
    let bestMs = Infinity;
    let storedBytes = 0;
    for (let round = 0; round < Number(values.rounds); round += 1) {
      const startedMs = performance.now();
      storedBytes = await compress(plain, { algorithm, threads });
      bestMs = Math.min(bestMs, performance.now() - startedMs);
    }
    const megabytesPerSecond = plain.length / 1000 / bestMs;
    if (threads === 1) oneThread = megabytesPerSecond;
    rows.push({
      case: `${algorithm} 4K, CRC`,
      threads,
      'MB/s': Math.round(megabytesPerSecond),
      'of one thread': oneThread === 0 ? '-' : (megabytesPerSecond / oneThread).toFixed(2),
      ratio: plain.length / storedBytes,
    });
  }
}
if (values.json) {
  process.stdout.write(
    `${JSON.stringify({ ...machineFacts(), plainBytes: plain.length, rows })}\n`,
  );
} else {
  const coding = { codec: 'lz4', blockBytes: 4096, hasBlockCrc: true } as const;
  const { kind } = createBlockCompressor(coding);
  process.stdout.write(
    `${kind} compressor, ${(plain.length / MIB).toFixed(0)} MiB of plain data\n`,
  );
  process.stdout.write(formatTable(rows));
}
