/**
 * How much memory does a process need that serves one large image? A 10 GiB disk in three layers
 * (ZFile LZ4, 4 KiB blocks; more than 200,000 segments) is attached from a registry on this machine by
 * `replaybd attach`, with two FUSE threads where that is permitted, else NBD; then random blocks of it
 * are read. `file` counts mapped files; the cache's pages among them, and in the last column, are the
 * page cache's own, which the kernel drops when it needs room.
 *
 *   node bench/memory.ts [--gib 10] [--reads 4000] [--mode record] [--work DIR] [--json]
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, readFileSync, readSync } from 'node:fs';
import { mkdir, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { SECTOR_BYTES } from '../src/base/limits.ts';
import { openLocalBlob } from '../src/blob/local-blob.ts';
import { NbdReader } from '../src/demo/nbd-client.ts';
import { fusePermitted } from '../src/frontend/fuse/permitted.ts';
import { FileSink } from '../src/image/byte-sink.ts';
import { writeCommittedLayer, type LsmtExtent } from '../src/image/lsmt/writer.ts';
import { openStack } from '../src/image/stack.ts';
import { TarWrapperSink } from '../src/image/tar-wrapper.ts';
import { ZFileWriter } from '../src/image/zfile/writer.ts';
import { DirectoryStore } from '../src/registry/embedded/store.ts';
import { randomOf } from './support/boot-reads.ts';
import { REPOSITORY, writeConfig, type BenchImage } from './support/image.ts';
import { startRegistryProcess } from './support/registry-process.ts';
import { formatTable, machineFacts } from './support/report.ts';

const { values } = parseArgs({
  options: {
    gib: { type: 'string', default: '10' },
    reads: { type: 'string', default: '4000' },
    mode: { type: 'string', default: 'record' },
    work: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const KIB = 1024;
const MIB = 2 ** 20;
const diskBytes = Number(values.gib) * 2 ** 30;
const BLOCK_BYTES = 4 * KIB;
const PIECE_BLOCKS_MAX = 8;
/** Of the disk, what each layer holds, bottom first. */
const LAYER_SHARES = [0.5, 0.06, 0.06];
/** How often extents repeat: every ZFile block is compressed by itself, so that is no matter. */
const SAMPLE_BYTES = 16 * MIB;
/** Bytes of a block that do not compress. */
const NOISE_BYTES = KIB;
/** By then, freed memory has been given back. */
const SETTLE_MS = 12_000;

/** Blocks that compress to about a third. */
function sampleData(): Buffer {
  const sample = Buffer.alloc(SAMPLE_BYTES, 'what compresses well ');
  for (let at = 0; at < SAMPLE_BYTES; at += BLOCK_BYTES) randomBytes(NOISE_BYTES).copy(sample, at);
  return sample;
}

/** Pieces of 4 to 32 KiB with gaps between, over the whole disk. */
function* extentsOf(layer: number, sample: Buffer): Generator<LsmtExtent> {
  const next = randomOf(layer + 1);
  const pieceMean = (PIECE_BLOCKS_MAX + 1) / 2;
  const gapMean = pieceMean / LAYER_SHARES[layer] - pieceMean;
  for (let block = 0; ;) {
    block += Math.max(1, Math.round(2 * next() * gapMean));
    const blocks = 1 + Math.floor(next() * PIECE_BLOCKS_MAX);
    if ((block + blocks) * BLOCK_BYTES > diskBytes) return;
    const bytes = blocks * BLOCK_BYTES;
    const from = BLOCK_BYTES * Math.floor((next() * (SAMPLE_BYTES - bytes)) / BLOCK_BYTES);
    const data = sample.subarray(from, from + bytes);
    yield { lba: (block * BLOCK_BYTES) / SECTOR_BYTES, sectors: bytes / SECTOR_BYTES, data };
    block += blocks;
  }
}

async function buildImage(work: string): Promise<BenchImage> {
  const registryRoot = join(work, 'registry');
  const store = new DirectoryStore(registryRoot);
  const sample = sampleData();
  const layers: BenchImage['layers'] = [];
  for (const layer of LAYER_SHARES.keys()) {
    const path = join(work, `layer-${layer}`);
    const file = await open(path, 'wx');
    const tar = new TarWrapperSink(new FileSink(file));
    const zfile = new ZFileWriter(tar);
    await writeCommittedLayer(zfile, { virtualSizeBytes: diskBytes }, extentsOf(layer, sample));
    await zfile.finish();
    const sizeBytes = await tar.finish();
    await file.close();
    const digest = await store.importBlob(REPOSITORY, path);
    layers.push({ digest, path, sizeBytes });
  }
  return { registryRoot, layers };
}

/** What the layers amount to, by opening them. */
async function describeImage(image: BenchImage): Promise<Record<string, number>> {
  const blobs = await Promise.all(image.layers.map(({ path }) => openLocalBlob(path)));
  const { map } = await openStack(blobs);
  await Promise.all(blobs.map((blob) => blob.close()));
  return {
    virtualMib: map.virtualSizeBytes / MIB,
    dataMib: Math.round(map.layers.reduce((sum, layer) => sum + layer.lsmtSizeBytes, 0) / MIB),
    blobMib: Math.round(image.layers.reduce((sum, layer) => sum + layer.sizeBytes, 0) / MIB),
    segments: map.index.segmentCount,
  };
}

/** Resident memory in MB, as the kernel counts it. */
interface Resident {
  when: string;
  total: number;
  anonymous: number;
  file: number;
  shared: number;
  /** Of `file`, the cache's mapped blobs. */
  cachePages: number;
  withoutCachePages: number;
}

function residentOf(when: string, { pid, cacheFolder }: Served): Resident {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const megabytes = (name: string): number => {
    const kib = new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1];
    if (kib === undefined) throw new Error(`no ${name} in /proc/${pid}/status`);
    return (Number(kib) * KIB) / 1e6;
  };
  const total = megabytes('VmRSS');
  const cachePages = mappedBytes(pid, cacheFolder) / 1e6;
  return {
    when,
    total,
    anonymous: megabytes('RssAnon'),
    file: megabytes('RssFile'),
    shared: megabytes('RssShmem'),
    cachePages,
    withoutCachePages: total - cachePages,
  };
}

/** Resident bytes of mapped files below a folder. */
function mappedBytes(pid: number, folder: string): number {
  let isBelow = false;
  let kib = 0;
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    if (/^[0-9a-f]+-[0-9a-f]+ /.test(line)) isBelow = line.includes(`${folder}/`);
    else if (isBelow && line.startsWith('Rss:')) kib += Number(/\d+/.exec(line)?.[0]);
  }
  return kib * KIB;
}

interface Served {
  child: ChildProcess;
  pid: number;
  kind: 'fuse' | 'nbd';
  /** A loop device, or NBD's socket. */
  path: string;
  cacheFolder: string;
}

async function attach(work: string, configPath: string): Promise<Served> {
  const kind = fusePermitted().ok ? 'fuse' : 'nbd';
  const suffix = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const main = fileURLToPath(new URL(`../src/cli/main.${suffix}`, import.meta.url));
  const { mode } = values;
  const flags = ['--json', '--frontend', kind, '--mode', mode, '--id', 'memory'];
  const cacheFolder = join(work, 'cache');
  const socket = join(work, 'nbd');
  const folders = ['--cache', cacheFolder, '--trace-dir', join(work, 'traces')];
  if (kind === 'nbd') flags.push('--nbd-socket', socket);
  const child = spawn(
    process.execPath,
    ['--max-semi-space-size=1', main, 'attach', configPath, ...flags, ...folders],
    { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, XDG_RUNTIME_DIR: work } },
  );
  const exited = once(child, 'exit').then(() => {
    throw new Error('replaybd attach ended before its device was ready');
  });
  const lines = createInterface({ input: child.stdout });
  const [line] = (await Promise.race([once(lines, 'line'), exited])) as [string];
  exited.catch(() => undefined);
  const { path } = JSON.parse(line) as { path: string };
  return { child, pid: child.pid ?? 0, kind, path: kind === 'nbd' ? socket : path, cacheFolder };
}

async function readRandomly({ kind, path }: Served): Promise<void> {
  const next = randomOf(9);
  const blocks = diskBytes / BLOCK_BYTES;
  const offsets = Array.from({ length: Number(values.reads) }, () => {
    return BLOCK_BYTES * Math.floor(next() * blocks);
  });
  if (kind === 'nbd') {
    const client = await NbdReader.connect(path);
    for (const offset of offsets) await client.read(offset, BLOCK_BYTES);
    client.close();
    return;
  }
  const into = Buffer.alloc(BLOCK_BYTES);
  const fd = openSync(path, 'r');
  for (const offset of offsets) readSync(fd, into, 0, BLOCK_BYTES, offset);
  closeSync(fd);
}

async function measure(work: string): Promise<{ facts: object; rows: Resident[] }> {
  const image = await buildImage(work);
  const registry = await startRegistryProcess(image.registryRoot);
  try {
    const configPath = join(work, 'config.v1.json');
    await writeConfig(image, registry.url, configPath);
    const served = await attach(work, configPath);
    try {
      const rows = [residentOf('ready', served)];
      await readRandomly(served);
      rows.push(residentOf(`after ${values.reads} reads`, served));
      await sleep(SETTLE_MS);
      rows.push(residentOf('settled', served));
      const facts = { frontend: served.kind, mode: values.mode, ...(await describeImage(image)) };
      return { facts, rows };
    } finally {
      served.child.kill('SIGTERM');
      if (served.child.exitCode === null) await once(served.child, 'exit');
    }
  } finally {
    await registry.close();
  }
}

const base = values.work ?? tmpdir();
await mkdir(base, { recursive: true });
const work = mkdtempSync(join(base, 'replaybd-memory-'));
try {
  const { facts, rows } = await measure(work);
  const report = { bench: 'memory', machine: machineFacts(), ...facts, rows };
  if (values.json) process.stdout.write(`${JSON.stringify(report)}\n`);
  else
    process.stdout.write(`${JSON.stringify(facts)}\n${formatTable(rows.map((r) => ({ ...r })))}`);
} finally {
  await rm(work, { recursive: true, force: true });
}
