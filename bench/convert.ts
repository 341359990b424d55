import { execFileSync, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { convert } from '../src/image/convert/convert.ts';
import { registrySource } from '../src/image/convert/registry-source.ts';
import { registryTarget } from '../src/image/convert/registry-target.ts';
import { createRegistryClient } from '../src/registry/client.ts';
import { digestOf } from '../src/registry/digest.ts';
import { DirectoryStore } from '../src/registry/embedded/store.ts';
import { mediaTypes } from '../src/registry/manifest.ts';
import { copyFiles } from './support/real-tree.ts';
import { startRegistryProcess } from './support/registry-process.ts';
import { formatTable, machineFacts, median } from './support/report.ts';

// How fast is an image of many layers, of real files of this machine, converted from one repository
// of a local registry to another? The converter runs in a process of its own, whose memory is told;
// the registry's is not. The original's published table has 567 MB in 13 s.

const ORIGINAL_BYTES_PER_SECOND = 567e6 / 13;
const SOURCE = 'bench/source:v1';

interface Job {
  url: string;
  target: string;
  cache: string | null;
}

interface Outcome {
  seconds: number;
  peakBytes: number;
  digest: string;
  sizeBytes: number;
}

const programPath = fileURLToPath(import.meta.url);

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      megabytes: { type: 'string', default: '500' },
      layers: { type: 'string', default: '10' },
      runs: { type: 'string', default: '3' },
      json: { type: 'boolean', default: false },
    },
  });
  const [megabytes, layers, runs] = [values.megabytes, values.layers, values.runs].map(Number);
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-bench-'));
  const root = join(folder, 'registry');
  try {
    const image = publish(root, folder, megabytes * 1e6, layers);
    const registry = await startRegistryProcess(root);
    const rows: Record<string, string | number>[] = [];
    const cold: Outcome[] = [];
    for (let i = 0; i < runs; i += 1) {
      cold.push(await inProcess({ url: registry.url, target: `bench/cold${i}:v1`, cache: null }));
    }
    const cache = join(folder, 'cache');
    const filled = await inProcess({ url: registry.url, target: 'bench/filled:v1', cache });
    const again = await inProcess({ url: registry.url, target: 'bench/again:v1', cache });
    await registry.close();
    const digests = new Set([...cold, filled, again].map(({ digest }) => digest));
    if (digests.size !== 1) throw new Error(`runs differ: ${[...digests].join(', ')}`);
    const typical = { ...cold[0], seconds: median(cold.map(({ seconds }) => seconds)) };
    const peakBytes = Math.max(...cold.map((outcome) => outcome.peakBytes));
    rows.push(row('no cache', { ...typical, peakBytes }, image.tarBytes));
    rows.push(row('filling a cache', filled, image.tarBytes));
    rows.push(row('all in the cache', again, image.tarBytes));
    if (values.json) {
      process.stdout.write(`${JSON.stringify({ ...machineFacts(), ...image, runs, rows })}\n`);
      return;
    }
    process.stdout.write(
      `${layers} layers, ${(image.tarBytes / 1e6).toFixed(0)} MB of tar, ` +
        `${(image.storedBytes / 1e6).toFixed(0)} MB stored, ${image.files} files; ` +
        `median of ${runs}\n${formatTable(rows)}`,
    );
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function row(name: string, outcome: Outcome, tarBytes: number): Record<string, string | number> {
  const rate = tarBytes / outcome.seconds;
  return {
    run: name,
    seconds: outcome.seconds,
    'MB/s': rate / 1e6,
    'x original': rate / ORIGINAL_BYTES_PER_SECOND,
    'peak RSS MB': Math.round(outcome.peakBytes / 1e6),
    'result MB': Math.round(outcome.sizeBytes / 1e6),
  };
}

/** Puts an image of gzip layers into the directory of a registry. */
function publish(root: string, folder: string, bytes: number, layerCount: number) {
  const store = new DirectoryStore(root);
  const [repository, tag] = SOURCE.split(':');
  const trees = Array.from({ length: layerCount }, (_, i) => join(folder, `tree${i}`));
  for (const tree of trees) mkdirSync(tree);
  const files = copyFiles(trees, bytes / layerCount);
  const layers = [];
  const diffIds = [];
  let tarBytes = 0;
  let storedBytes = 0;
  for (const tree of trees) {
    const path = `${tree}.tar`;
    execFileSync('tar', ['--sort=name', '--format=pax', '-C', tree, '-cf', path, '.']);
    const tar = readFileSync(path);
    const stored = gzipSync(tar);
    rmSync(path);
    rmSync(tree, { recursive: true });
    tarBytes += tar.length;
    storedBytes += stored.length;
    diffIds.push(digestOf(tar));
    const digest = store.putBlob(repository, stored);
    layers.push({ mediaType: `${mediaTypes.ociLayer}+gzip`, digest, size: stored.length });
  }
  const config = Buffer.from(
    JSON.stringify({
      os: 'linux',
      architecture: 'amd64',
      rootfs: { type: 'layers', diff_ids: diffIds },
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: {
        mediaType: mediaTypes.ociConfig,
        digest: store.putBlob(repository, config),
        size: config.length,
      },
      layers,
    }),
  );
  const mediaType = mediaTypes.ociManifest;
  store.putManifest(repository, { digest: digestOf(manifest), mediaType, bytes: manifest }, tag);
  return { tarBytes, storedBytes, files };
}

async function inProcess(job: Job): Promise<Outcome> {
  const child = fork(programPath, [JSON.stringify(job)], {
    execArgv: ['--max-semi-space-size=1'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const answer = once(child, 'message') as Promise<[Outcome]>;
  const exited = once(child, 'exit') as Promise<[number | null]>;
  const first = await Promise.race([answer, exited.then(([code]) => code)]);
  if (!Array.isArray(first)) throw new Error(`the converter ended with ${first}`);
  await exited;
  return first[0];
}

async function convertOnce({ url, target, cache }: Job): Promise<Outcome> {
  const client = createRegistryClient();
  const startedMs = performance.now();
  const ignore = () => undefined;
  const { root, images } = await convert({
    source: registrySource(client, `${url}/${SOURCE}`),
    target: registryTarget(client, `${url}/${target}`, false),
    settings: { virtualSizeBytes: 64 * 2 ** 30, algorithm: 'lz4', blockBytes: 4096 },
    style: { isOci: true, isReferrer: false },
    platform: 'all',
    baseLayerPath: null,
    concurrency: 1,
    cache: cache === null ? null : { folder: cache, quotaBytes: 2 ** 40 },
    isDurable: false,
    progress: {
      begun: ignore,
      fetched: ignore,
      applied: ignore,
      committed: ignore,
      finished: ignore,
    },
    signal: new AbortController().signal,
  });
  const seconds = (performance.now() - startedMs) / 1000;
  await client.close();
  const sizeBytes = images[0].layers.reduce((sum, layer) => sum + layer.sizeBytes, 0);
  const peakBytes = process.resourceUsage().maxRSS * 1024;
  return { seconds, peakBytes, digest: root.descriptor.digest, sizeBytes };
}

if (process.argv[1] === programPath) {
  const [, , job] = process.argv;
  if (process.send === undefined) await main();
  else {
    process.send(await convertOnce(JSON.parse(job) as Job));
    process.disconnect();
  }
}
