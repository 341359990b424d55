import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { promisify } from 'node:util';
import { createRegistryClient } from '../../src/registry/client.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { mediaTypes, type ImageManifest } from '../../src/registry/manifest.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import { listTraces, pullTrace, pushTrace } from '../../src/trace/referrer.ts';
import { defaultTraceFolder, imageKey, TraceStore } from '../../src/trace/store.ts';
import { describeWorkload, type Trace } from '../../src/trace/trace.ts';
import { bootLikeRecords, traceOf } from './synthetic.ts';

// Goal: a trace comes back as it was put, from the local store, from a registry and through the
// commands. Method: real files, and the embedded registry over HTTP.

const folder = mkdtempSync(join(tmpdir(), 'replaybd-test-'));
after(() => rmSync(folder, { recursive: true }));

const layerBytes = Buffer.from('not really a layer, but bytes with a digest');
const layers = [{ digest: digestOf(layerBytes), sizeBytes: layerBytes.length, diffId: null }];

function sampleTrace(word: string, startedAtMs = 1_760_000_000_000): Trace {
  const trace = traceOf(bootLikeRecords(20, 1), layers);
  return {
    ...trace,
    workload: describeWorkload([word], []),
    recording: { ...trace.recording, startedAtMs },
  };
}

const runFile = promisify(execFile);

/** `replaybd trace WORDS` in a process of its own; rejects as execFile does. */
async function runCommand(...words: string[]): Promise<string> {
  const code = `
    import { Command } from 'commander';
    const { register } = await import(process.argv[1]);
    const program = new Command();
    register(program);
    await program.parseAsync(process.argv.slice(2), { from: 'user' });`;
  const module = new URL('../../src/cli/trace.ts', import.meta.url).href;
  const args = ['--input-type=module', '-e', code, module, 'trace', ...words];
  return (await runFile(process.execPath, args)).stdout;
}

test('the store keeps, lists and removes traces by image and workload', async () => {
  const store = new TraceStore(join(folder, 'store'));
  const trace = sampleTrace('/bin/a');
  const image = imageKey(trace.image);
  const bytes = encodeTrace(trace);
  assert.deepEqual(await store.list(), []);
  assert.equal(await store.get(image, trace.workload.key), null);
  const path = await store.put(image, trace.workload.key, bytes);
  await store.put(image, trace.workload.key, bytes);
  writeFileSync(`${path}.123.tmp`, 'left by a crash');
  assert.deepEqual(await store.get(image, trace.workload.key), bytes);
  const listed = await store.list();
  assert.deepEqual(
    listed.map(({ image: found, workload, sizeBytes }) => ({ found, workload, sizeBytes })),
    [{ found: image, workload: trace.workload.key, sizeBytes: bytes.length }],
  );
  assert.equal(await store.remove(image, trace.workload.key), true);
  assert.equal(await store.remove(image, trace.workload.key), false);
  await assert.rejects(store.get('../../etc', trace.workload.key), { code: 'ERR_TRACE_STORE_KEY' });
});

test('an image is named by its layers, in order', () => {
  const [a, b] = ['a', 'b'].map((text) => ({
    digest: digestOf(Buffer.from(text)),
    sizeBytes: 1,
    diffId: null,
  }));
  const key = (list: (typeof a)[]): string => imageKey({ layers: list });
  assert.notEqual(key([a, b]), key([b, a]));
  const images = [a.digest, null].map((manifestDigest) => ({ manifestDigest, layers: [a, b] }));
  assert.deepEqual(images.map(imageKey), [key([a, b]), key([a, b])]);
  assert.equal(key([a]), digestOf(Buffer.from(`${a.digest}\n`)).slice('sha256:'.length));
});

test('the default folder follows XDG', () => {
  const stateHome = { XDG_STATE_HOME: '/var/state' };
  assert.equal(defaultTraceFolder(stateHome), '/var/state/replaybd/traces');
  const expected =
    process.getuid?.() === 0 ? '/var/lib/replaybd/traces' : '/home/u/.local/state/replaybd/traces';
  assert.equal(defaultTraceFolder({ HOME: '/home/u', XDG_STATE_HOME: 'relative' }), expected);
});

test('a trace travels as a referrer of its image', async () => {
  const registry = await startEmbeddedRegistry({ root: join(folder, 'registry') });
  const client = createRegistryClient();
  try {
    const image = `${registry.url}/team/app:v1`;
    const config = Buffer.from('{}');
    await client.pushBlob(`${registry.url}/team/app`, {
      digest: layers[0].digest,
      sizeBytes: layerBytes.length,
      content: { bytes: layerBytes },
    });
    const configDigest = digestOf(config);
    await client.pushBlob(`${registry.url}/team/app`, {
      digest: configDigest,
      sizeBytes: 2,
      content: { bytes: config },
    });
    const manifest: ImageManifest = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { mediaType: mediaTypes.ociConfig, digest: configDigest, size: 2 },
      layers: [
        { mediaType: mediaTypes.ociLayer, digest: layers[0].digest, size: layerBytes.length },
      ],
    };
    const manifestBytes = Buffer.from(JSON.stringify(manifest));
    await client.pushManifest(
      `${registry.url}/team/app`,
      manifestBytes,
      mediaTypes.ociManifest,
      'v1',
    );

    assert.equal(await pullTrace(client, image), null);
    await assert.rejects(runCommand('pull', image), /ERR_TRACE_NOT_FOUND/);
    const older = encodeTrace(sampleTrace('/bin/a', 1_760_000_000_000));
    const newer = encodeTrace(sampleTrace('/bin/a', 1_760_000_001_000));
    const other = encodeTrace(sampleTrace('/bin/b', 1_750_000_000_000));
    await pushTrace(client, image, newer);
    await pushTrace(client, image, older);
    const pushed = await pushTrace(client, image, other);
    assert.equal((await listTraces(client, image)).length, 3);
    assert.deepEqual((await pullTrace(client, image))?.bytes, Buffer.from(newer));
    const key = decodeTrace(other).workload.key;
    const pulled = await pullTrace(client, image, key);
    assert.deepEqual(pulled?.bytes, Buffer.from(other));
    assert.equal(pulled?.digest, pushed.digest);

    const foreign = sampleTrace('/bin/a');
    const digest = digestOf(Buffer.from('another layer'));
    const strange = { ...foreign.image, layers: [{ ...layers[0], digest }] };
    await assert.rejects(pushTrace(client, image, encodeTrace({ ...foreign, image: strange })), {
      code: 'ERR_TRACE_IMAGE',
    });

    const file = join(folder, 'again.trace');
    writeFileSync(file, older);
    assert.match(await runCommand('push', image, file), /^sha256:[0-9a-f]{64}\n$/);
    assert.equal(
      (await listTraces(client, image)).length,
      3,
      'the same trace is the same artifact',
    );
    const store = join(folder, 'pulled');
    const path = await runCommand('pull', image, '--workload', key, '--trace-dir', store);
    assert.ok(path.trim().endsWith(`${key}.trace`));
    const [listed] = JSON.parse(await runCommand('ls', '--json', '--trace-dir', store)) as object[];
    assert.deepEqual({ ...listed, workloadKey: key, image, origin: 'pulled' }, listed);
    assert.match(await runCommand('ls', image), new RegExp(key));
  } finally {
    await client.close();
    await registry.close();
  }
});

test('show and verify tell a sound file from a damaged one', async () => {
  const file = join(folder, 'show.trace');
  const bytes = encodeTrace(sampleTrace('/bin/\u001b[2Jsh'));
  writeFileSync(file, bytes);
  const text = await runCommand('show', file);
  assert.match(text, /^workload {3}\/bin\/\?\[2Jsh$/m);
  assert.match(text, /^records {4}20, /m);
  const facts = JSON.parse(await runCommand('show', '--json', file)) as Record<string, unknown>;
  assert.equal(facts.records, 20);
  assert.equal(facts.fileBytes, bytes.length);
  assert.match(await runCommand('verify', file), /sound, 20 records/);
  bytes[100] ^= 1;
  writeFileSync(file, bytes);
  await assert.rejects(runCommand('verify', file), /show\.trace: CRC-32C expected/);
  await assert.rejects(runCommand('show', join(folder, 'missing')), /ERR_TRACE_NOT_FOUND/);
});

test('a failed write leaves neither the file nor its temporary', async () => {
  const store = new TraceStore(join(folder, 'broken'));
  writeFileSync(join(folder, 'broken'), 'a file where the folder should be');
  await assert.rejects(store.put('0'.repeat(64), '1'.repeat(64), new Uint8Array(4)));
  assert.ok(!readdirSync(folder).some((name) => name.endsWith('.tmp')));
});
