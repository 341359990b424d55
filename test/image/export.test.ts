// Goal: an exported disk is the image's disk, sparse, whole or not there at all; inspect tells the
// truth about it. Method: fixtures of every wrapping through the real commands, digests from the
// original's fixtures; failures and interruptions by sources that fail.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  createReadStream,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { PassThrough, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { ReplaybdError } from '../../src/base/errors.ts';
import { digestOfDisk, exportToFile, exportToStream } from '../../src/image/export.ts';
import { FileSink } from '../../src/image/byte-sink.ts';
import { openInput } from '../../src/image/input.ts';
import { inspectInput } from '../../src/image/inspect.ts';
import { writeCommittedLayer } from '../../src/image/lsmt/writer.ts';
import { mergeLayers } from '../../src/image/lsmt/merged-index.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { expectations, fixtures, removeFolder, unpackFixtures } from './lsmt-support.ts';

const MIB = 1024 * 1024;

let folder = '';
before(() => {
  folder = unpackFixtures();
});
after(() => removeFolder(folder));

const LAYERS: Record<string, string> = {
  'rw-append/commit.lsmt': 'raw',
  'rw-append/commit.lz4-4k.obd': 'ZFile of LZ4',
  'rw-append/commit.zstd-64k.obd': 'ZFile of zstd',
  'rw-append/commit.lz4-4k.tar': 'tar of ZFile',
  'rw-append/sealed': 'sealed',
  'stack3/merged.lz4-4k.obd': 'merged, ZFile',
  'edge/empty.lz4-4k.obd': 'nothing, ZFile',
  'edge/empty.lz4-4k.tar': 'nothing, tar of ZFile',
  'edge/full.lz4-4k.obd': 'no holes',
  'edge/long-run.lz4-4k.obd': 'entries of the longest kind',
};

for (const [path, what] of Object.entries(LAYERS)) {
  test(`a layer (${what}) exports to the bytes it stands for`, async () => {
    const input = await openInput([locate(path)]);
    try {
      assert.equal(await digestOfDisk(input.source), expectations[path].sha256);
      const { segments } = expectations[path];
      if (segments !== undefined) assert.equal(input.stack.layers[0].lsmt.count, segments.length);
    } finally {
      await input.close();
    }
  });
}

test('a stack of three layers, each wrapped differently, is flattened at every height', async () => {
  const paths = ['layer0.lz4-4k.tar', 'layer1.zstd-16k.obd', 'layer2.lsmt'];
  for (let height = 1; height <= paths.length; height += 1) {
    const input = await openInput(paths.slice(0, height).map((path) => locate(`stack3/${path}`)));
    const expected = expectations[`stack3/${paths[height - 1]}`];
    assert.equal(input.source.virtualSizeBytes, expected.virtualSizeBytes);
    assert.equal(await digestOfDisk(input.source), expected.sha256);
    await input.close();
  }
});

test('a configuration with a writable layer exports what a guest would see', async () => {
  const input = await openInput([writeConfig('upper', { upper: upperPaths() })]);
  assert.equal(await digestOfDisk(input.source), expectations['stack3/upper.{data,index}'].sha256);
  await input.close();
});

test('an acceleration layer is not part of the disk', async () => {
  const config = writeConfig('accelerated', { accelerationLayer: true }, [{ dir: '/no/trace' }]);
  const input = await openInput([config]);
  assert.equal(await digestOfDisk(input.source), expectations['stack3/layer2.lsmt'].sha256);
  await input.close();
});

test('the file is whole, sparse, and under its own name only', async () => {
  const input = await openInput([locate('cli-1g/commit.lz4-4k.obd')]);
  const out = join(folder, 'out');
  mkdirSync(out);
  const target = join(out, 'disk.raw');
  writeFileSync(target, 'what was there before');
  await assert.rejects(exportToFile(input.source, target), { code: 'ERR_OUTPUT_EXISTS' });
  await exportToFile(input.source, target, { replace: true });
  await input.close();
  assert.deepEqual(readdirSync(out), ['disk.raw']);
  const { size, blocks } = statSync(target);
  assert.equal(size, 1024 * MIB);
  assert.ok(blocks * 512 < MIB, `${blocks * 512} bytes stored`);
  const hash = createHash('sha256');
  await pipeline(createReadStream(target, { highWaterMark: MIB }), hash);
  assert.equal(hash.digest('hex'), expectations['cli-1g/commit.lz4-4k.obd'].sha256);
});

test('a stream gets every byte, holes included', async () => {
  const input = await openInput([locate('stack3/merged.lz4-4k.obd')]);
  const stream = new PassThrough();
  const hash = createHash('sha256');
  const [, last] = await Promise.all([
    exportToStream(input.source, stream).then(() => stream.end()),
    pipeline(stream, hash).then(() => hash.digest('hex')),
  ]);
  await input.close();
  assert.equal(last, expectations['stack3/merged.lz4-4k.obd'].sha256);
});

test('a failing read, or Ctrl-C, leaves nothing and keeps what was there', async () => {
  const index = mergeLayers([entriesOf(4096)], 64 * MIB);
  const out = join(folder, 'failed');
  mkdirSync(out);
  const target = join(out, 'disk.raw');
  writeFileSync(target, 'precious');
  const failing = {
    virtualSizeBytes: 64 * MIB,
    index,
    read: (offset: number) =>
      offset < 16 * MIB
        ? Promise.resolve()
        : Promise.reject(new ReplaybdError('ERR_BROKEN', 'broken')),
  };
  await assert.rejects(exportToFile(failing, target, { replace: true }), { code: 'ERR_BROKEN' });
  const controller = new AbortController();
  const slow = { ...failing, read: () => Promise.resolve() };
  const aborting = exportToFile(slow, target, {
    replace: true,
    signal: controller.signal,
    onProgress: () => controller.abort(new ReplaybdError('ERR_INTERRUPTED', 'interrupted')),
  });
  await assert.rejects(aborting, { code: 'ERR_INTERRUPTED' });
  assert.deepEqual(readdirSync(out), ['disk.raw']);
  assert.equal(readFileSync(target, 'utf8'), 'precious');
});

test('progress never goes back, and ends at the size of the disk', async () => {
  const input = await openInput([locate('stack3/merged.lz4-4k.obd')]);
  const seen: number[] = [];
  await digestOfDisk(input.source, { onProgress: (done) => seen.push(done) });
  await input.close();
  assert.deepEqual(
    seen,
    [...seen].sort((a, b) => a - b),
  );
  assert.equal(seen.at(-1), input.source.virtualSizeBytes);
});

test('a reader that goes away, or a folder that is not there, is an error and no crash', async () => {
  const input = await openInput([locate('stack3/merged.lz4-4k.obd')]);
  const code = 'ERR_OUTPUT_WRITE';
  const gone = new Writable({ write: (_, __, done) => done(new Error('write EPIPE')) });
  await assert.rejects(exportToStream(input.source, gone), { code, message: /EPIPE/ });
  await assert.rejects(exportToFile(input.source, join(folder, 'none/disk.raw')), {
    code,
    message: /expected the folder .*none to write into, found none/,
  });
  await input.close();
});

test('a target that is no file is refused', async () => {
  const input = await openInput([locate('edge/empty.lz4-4k.obd')]);
  const code = 'ERR_OUTPUT_TARGET';
  await assert.rejects(exportToFile(input.source, '/dev/null'), { code });
  await assert.rejects(exportToFile(input.source, folder), { code, message: /found a folder/ });
  await input.close();
});

test('inputs that cannot be opened are named', async () => {
  await assert.rejects(openInput([join(folder, 'none')]), { code: 'ERR_INPUT_READ' });
  const digest = `sha256:${'0'.repeat(64)}`;
  const remote = writeConfig('remote', {}, [{ digest }]);
  await assert.rejects(openInput([remote]), { code: 'ERR_INPUT_REMOTE' });
});

test('inspect reports headers, index and compression', async () => {
  const path = 'rw-append/commit.lz4-4k.tar';
  const input = await openInput([locate(path)]);
  const { layers, merged, upper } = inspectInput(input);
  await input.close();
  assert.equal(upper, null);
  const [layer] = layers;
  assert.equal(layer.kind, 'committed');
  assert.equal(layer.tarWrapper, true);
  assert.equal(layer.compression, 'lz4');
  assert.equal(layer.blockBytes, 4096);
  assert.equal(layer.blockChecksums, true);
  assert.equal(layer.blobBytes, 239_616);
  assert.equal(layer.lsmtBytes, 1_349_120);
  const segments = expectations['rw-append/commit.lsmt'].segments ?? [];
  const data = segments.filter(([, , , zeroed]) => zeroed === 0).map(([, sectors]) => sectors);
  const zeroed = segments.filter(([, , , zeroed]) => zeroed === 1).map(([, sectors]) => sectors);
  assert.equal(layer.index.entries, segments.length);
  assert.equal(layer.index.zeroedEntries, zeroed.length);
  assert.equal(layer.index.dataBytes, sum(data) * 512);
  assert.equal(layer.index.zeroedBytes, sum(zeroed) * 512);
  assert.equal(layer.index.entryBytesMax, Math.max(...data) * 512);
  assert.deepEqual(merged.servedBytes, [sum(data) * 512]);
  assert.equal(merged.zeroedBytes, sum(zeroed) * 512);
  assert.equal(merged.holeBytes, 16 * MIB - sum(data) * 512 - sum(zeroed) * 512);
});

test('the commands print what scripts can use', async () => {
  const config = writeConfig('cli', {});
  const digest = await run(['export', '--sha256', config]);
  assert.equal(digest, `${expectations['stack3/layer2.lsmt'].sha256}\n`);
  const report = JSON.parse(await run(['inspect', '--json', config]));
  assert.equal(report.layers.length, 3);
  const text = await run(['inspect', config]);
  assert.match(text, /message "stack3 layer 0"/);
  assert.match(text, /uuid 000000[0-9A-F-]+, parent 000000[0-9A-F-]+/);
  assert.match(text, /ratio \d+\.\d\d/);
});

test('layers that are only in a registry are exported all the same', async () => {
  const registry = await startEmbeddedRegistry({ root: join(folder, 'registry') });
  const files = ['stack3/layer0.lz4-4k.tar', 'stack3/layer1.zstd-16k.obd', 'stack3/layer2.lsmt'];
  const lowers = files.map((file) => {
    const bytes = readFileSync(locate(file));
    return { digest: registry.store.putBlob('a/b', bytes), size: bytes.length };
  });
  const path = join(folder, 'in-registry.json');
  writeFileSync(path, JSON.stringify({ repoBlobUrl: `${registry.url}/v2/a/b/blobs`, lowers }));
  try {
    const digest = await run(['export', '--sha256', '--cache', 'none', path]);
    assert.equal(digest, `${expectations['stack3/layer2.lsmt'].sha256}\n`);
  } finally {
    await registry.close();
  }
});

test('Ctrl-C ends a long export at once, with its reason', async () => {
  const path = join(folder, 'huge.lsmt');
  const file = await open(path, 'w');
  await writeCommittedLayer(new FileSink(file), { virtualSizeBytes: 2 ** 50 }, []);
  await file.close();
  const running = command(['export', '--sha256', path]);
  running.child.stderr?.once('data', () => running.child.kill('SIGINT'));
  await assert.rejects(running, (error: Error & { stderr?: string; stdout?: string }) => {
    assert.match(error.stderr ?? '', /ERR_INTERRUPTED/);
    assert.equal(error.stdout, '');
    return true;
  });
});

/** Runs one command in a process of its own, which says when it listens to Ctrl-C. */
function command(args: string[]) {
  const module = (path: string) => JSON.stringify(import.meta.resolve(path));
  const script = join(folder, 'cli.mjs');
  writeFileSync(
    script,
    `import { Command } from ${module('commander')};
    import { register as registerExport } from ${module('../../src/cli/export.ts')};
    import { register as registerInspect } from ${module('../../src/cli/inspect.ts')};
    process.on('newListener', (name) => {
      if (name === 'SIGINT') setImmediate(() => process.stderr.write('listening'));
    });
    const program = new Command();
    registerExport(program);
    registerInspect(program);
    await program.parseAsync();`,
  );
  return promisify(execFile)(process.execPath, [script, ...args], { timeout: 30_000 });
}

async function run(args: string[]): Promise<string> {
  return (await command(args)).stdout;
}

/** A fixture, wherever it is kept. */
function locate(path: string): string {
  const unpacked = join(folder, 'lsmt', path);
  return existsSync(unpacked) ? unpacked : join(fixtures, path);
}

function upperPaths() {
  return { index: locate('stack3/upper.index'), data: locate('stack3/upper.data') };
}

/** A configuration of the three-layer stack, with more keys and more lowers. */
function writeConfig(name: string, keys: object, above: object[] = []): string {
  const files = ['layer0.lz4-4k.tar', 'layer1.zstd-16k.obd', 'layer2.lsmt'];
  const repoBlobUrl = 'http://127.0.0.1:9/v2/fix/blobs';
  const lowers = [...files.map((file) => ({ file: locate(`stack3/${file}`) })), ...above];
  const path = join(folder, `${name}.json`);
  writeFileSync(path, JSON.stringify({ repoBlobUrl, lowers, ...keys }));
  return path;
}

/** One layer that is full of data. */
function entriesOf(count: number) {
  const sectors = 32;
  return {
    count,
    start: Float64Array.from({ length: count }, (_, i) => i * sectors),
    sectors: new Uint16Array(count).fill(sectors),
    mapped: Float64Array.from({ length: count }, (_, i) => 8 + i * sectors),
    zeroed: new Uint8Array(count),
    hasTags: false,
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
