/**
 * How long does it take to commit a writable layer? An append-only layer of this machine's files,
 * written in pieces of 1 MiB in order, and in blocks of 4 KiB in any order; committed as it is, with
 * LZ4 and with zstd (4 KiB blocks, CRCs). All of it in the page cache, without a flush.
 *
 *   node bench/commit.ts [--mib 300] [--rounds 3] [--threads N] [--folder /tmp] [--json]
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { LayerPacking } from '../src/image/layer-writer.ts';
import { createUpper, type UpperPaths } from '../src/image/lsmt/create-upper.ts';
import { openWritableUpper } from '../src/image/lsmt/writable-upper.ts';
import { commitUpper } from '../src/image/tools/commit.ts';
import { mixedData } from './support/real-data.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '300' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 1024 * 1024;
const BLOCK_BYTES = 4096;

/** Where the pieces of a layer go, in the order in which they are written. */
function placesOf(count: number, isShuffled: boolean): number[] {
  const places = Array.from({ length: count }, (_, place) => place);
  let state = 1;
  for (let at = count - 1; isShuffled && at > 0; at -= 1) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const other = Math.floor((state / 2 ** 32) * (at + 1));
    [places[at], places[other]] = [places[other], places[at]];
  }
  return places;
}

async function writeUpper(paths: UpperPaths, plain: Buffer, isShuffled: boolean): Promise<void> {
  const pieceBytes = isShuffled ? BLOCK_BYTES : MIB;
  await createUpper({ ...paths, kind: 'append', virtualSizeBytes: plain.length });
  const upper = await openWritableUpper(paths);
  for (const place of placesOf(Math.floor(plain.length / pieceBytes), isShuffled)) {
    const offset = place * pieceBytes;
    await upper.write(offset, plain.subarray(offset, offset + pieceBytes));
  }
  await upper.close();
}

const threads = values.threads === undefined ? {} : { threads: Number(values.threads) };
const packings: [string, LayerPacking][] = [
  ['not compressed', { zfile: null, tar: false }],
  ['LZ4', { zfile: { algorithm: 'lz4', ...threads }, tar: false }],
  ['zstd', { zfile: { algorithm: 'zstd', ...threads }, tar: false }],
];

const bytes = Number(values.mib) * MIB;
const folder = await mkdtemp(join(values.folder, 'replaybd-bench-'));
const rows = [];
try {
  const some = mixedData(Math.min(bytes, 256 * MIB));
  const plain = Buffer.concat(
    Array.from({ length: Math.ceil(bytes / some.length) }, () => some),
    bytes,
  );
  for (const isShuffled of [false, true]) {
    const name = isShuffled ? '4 KiB, any order' : '1 MiB, in order';
    const paths = { data: join(folder, `${name}.data`), index: join(folder, `${name}.index`) };
    await writeUpper(paths, plain, isShuffled);
    for (const [compression, packing] of packings) {
      const times: number[] = [];
      let entries = 0;
      for (let round = 0; round < Number(values.rounds); round += 1) {
        const path = join(folder, 'layer');
        const startedMs = performance.now();
        const options = { path, packing, replace: true, isDurable: false };
        ({ entries } = await commitUpper(paths.data, paths.index, options));
        times.push(performance.now() - startedMs);
      }
      const ms = median(times);
      const rate = Math.round(bytes / 1000 / ms);
      rows.push({ written: name, compression, entries, seconds: ms / 1000, 'MB/s': rate });
    }
  }
} finally {
  await rm(folder, { recursive: true, force: true });
}
if (values.json) process.stdout.write(`${JSON.stringify({ ...machineFacts(), bytes, rows })}\n`);
else process.stdout.write(formatTable(rows));
