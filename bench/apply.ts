/**
 * How long does a layer's tar take to become files of an ext4 image? A tar of this machine's files, 300
 * MiB and 3,400 of them, goes to a fresh image of 64 GiB through the page cache; nothing is flushed.
 * Also: the same tar compressed, and a layer that changes one file of the result. Needs GNU tar, and
 * room for the tar and the image.
 *
 *   node bench/apply.ts [--mib 300] [--files 3400] [--runs 5] [--folder DIR] [--json]
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { applyLayer, type AppliedLayer } from '../src/image/apply/apply-layer.ts';
import { createExt4 } from '../src/image/ext4/build.ts';
import { decompressed } from '../src/image/tar/decompress.ts';
import { inputBytes } from '../src/image/tar/input.ts';
import { walkFiles } from './support/real-data.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

const { values } = parseArgs({
  options: {
    mib: { type: 'string', default: '300' },
    files: { type: 'string', default: '3400' },
    runs: { type: 'string', default: '5' },
    folder: { type: 'string', default: tmpdir() },
    json: { type: 'boolean', default: false },
  },
});
const MIB = 2 ** 20;
const VIRTUAL_SIZE_BYTES = 64 * 2 ** 30;
const SMALL_BYTES = 64 * 1024;

/** So many files with so many bytes, about: four in five small, the others alike in size. */
function chooseFiles(count: number, bytes: number): string[] {
  const chosen: string[] = [];
  const large: { path: string; size: number }[] = [];
  let left = bytes;
  for (const path of walkFiles('/usr')) {
    const { size } = statSync(path);
    if (size > SMALL_BYTES) large.push({ path, size });
    else if (chosen.length < count * 0.8) {
      chosen.push(path);
      left -= size;
    }
  }
  const missing = count - chosen.length;
  const mean = left / missing;
  large.sort((a, b) => Math.abs(a.size - mean) - Math.abs(b.size - mean));
  return [...chosen, ...large.slice(0, missing).map(({ path }) => path)];
}

async function timed(
  work: () => Promise<AppliedLayer>,
): Promise<{ ms: number; dirtyBytes: number }> {
  const startedMs = performance.now();
  const { dirty } = await work();
  const ms = performance.now() - startedMs;
  return { ms, dirtyBytes: dirty.reduce((sum, { length }) => sum + length, 0) };
}

const folder = mkdtempSync(join(values.folder, 'replaybd-bench-apply-'));
try {
  const files = chooseFiles(Number(values.files), Number(values.mib) * MIB);
  const tar = join(folder, 'layer.tar');
  const list = join(folder, 'list');
  writeFileSync(list, files.join('\n'));
  execFileSync('tar', ['-cPf', tar, '--format=posix', '-T', list]);
  const small = join(folder, 'small.tar');
  writeFileSync(join(folder, 'hostname'), 'changed\n');
  execFileSync('tar', ['-C', folder, '-cf', small, 'hostname']);
  execFileSync('gzip', ['-1k', tar]);
  const image = join(folder, 'image');
  const apply = (path: string) =>
    timed(() => applyLayer({ imagePath: image, tar: decompressed(inputBytes(path)) }));
  const rows = [];
  const layers = { plain: tar, gzip: `${tar}.gz`, 'one file more': small };
  for (const [name, path] of Object.entries(layers)) {
    const results = [];
    for (let run = 0; run < Number(values.runs); run += 1) {
      if (path !== small) {
        rmSync(image, { force: true });
        writeFileSync(image, '');
        await createExt4(image, { virtualSizeBytes: VIRTUAL_SIZE_BYTES });
      }
      results.push(await apply(path));
    }
    const ms = median(results.map((result) => result.ms));
    const mib = statSync(name === 'gzip' ? tar : path).size / MIB;
    rows.push({
      layer: name,
      'tar MiB': mib,
      ms,
      'best ms': Math.min(...results.map((result) => result.ms)),
      'MiB/s': mib / (ms / 1000),
      'KiB written': (results.at(-1)?.dirtyBytes ?? 0) / 1024,
    });
  }
  const facts = { ...machineFacts(), files: files.length };
  if (values.json) process.stdout.write(`${JSON.stringify({ facts, rows })}\n`);
  else process.stdout.write(`${JSON.stringify(facts)}\n${formatTable(rows)}`);
} finally {
  rmSync(folder, { recursive: true });
}
