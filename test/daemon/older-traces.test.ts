import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { traceStoreLimits } from '../../src/base/limits.ts';
import type { ImageDescription } from '../../src/daemon/image-description.ts';
import { olderTraces } from '../../src/daemon/older-traces.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { traceFromRegistry } from '../../src/daemon/trace-search.ts';
import { digestOf } from '../../src/registry/digest.ts';
import { startEmbeddedRegistry } from '../../src/registry/embedded/server.ts';
import { mediaTypes, type ImageManifest } from '../../src/registry/manifest.ts';
import { emptyDescriptor } from '../../src/registry/referrers.ts';
import { encodeTrace } from '../../src/trace/encode.ts';
import {
  pushTrace,
  TRACE_ARTIFACT_TYPE,
  TRACE_MEDIA_TYPE,
  WORKLOAD_ANNOTATION,
} from '../../src/trace/referrer.ts';
import { describeWorkload, takeRecords, type Trace } from '../../src/trace/trace.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, traceOf } from '../trace/synthetic.ts';

// Goal: a host with an empty store finds traces of older images by the repository's tags, within bounds,
// and finds none, without an error, where the registry does not tell of tags.
// Method: the embedded registry with small images; its log tells what was asked.

const workload = describeWorkload(['/bin/app'], []);
const REPOSITORY = 'team/app';

async function setUp(t: TestContext) {
  const scratch = scratchOf(t);
  const registry = await startEmbeddedRegistry({ root: scratch.path('registry') });
  scratch.atEnd(() => registry.close());
  const runtime = await Runtime.open({
    ...{ cacheFolder: null, quotaBytes: 2 ** 20 },
    traceFolder: scratch.path('traces'),
  });
  scratch.atEnd(() => runtime.close());
  const name = `${registry.url}/${REPOSITORY}`;

  /** An image of one layer; its manifest's digest. */
  const addImage = async (tag: string): Promise<string> => {
    const put = (text: string) => {
      const bytes = Buffer.from(text);
      return { digest: registry.store.putBlob(REPOSITORY, bytes), size: bytes.length };
    };
    const manifest: ImageManifest = {
      schemaVersion: 2,
      mediaType: mediaTypes.ociManifest,
      config: { mediaType: mediaTypes.ociConfig, ...put('{}') },
      layers: [{ mediaType: mediaTypes.ociLayer, ...put(`layer of ${tag}`) }],
    };
    const bytes = Buffer.from(JSON.stringify(manifest));
    const { client } = runtime;
    return (await client.pushManifest(name, bytes, mediaTypes.ociManifest, tag)).digest;
  };
  const traceFor = (tag: string): Trace => {
    const bytes = Buffer.from(`layer of ${tag}`);
    const layer = { digest: digestOf(bytes), sizeBytes: bytes.length, diffId: null };
    return { ...traceOf(bootLikeRecords(5, 1), [layer]), workload };
  };
  const addTrace = async (tag: string) => {
    await pushTrace(runtime.client, `${name}:${tag}`, encodeTrace(traceFor(tag)));
  };
  /** As whoever does not refuse it would push it. */
  const addEmptyTrace = async (tag: string) => {
    const trace = traceFor(tag);
    const bytes = encodeTrace({ ...trace, records: takeRecords(trace.records, 0) });
    const { client } = runtime;
    const subject = await client.getManifest(`${name}:${tag}`);
    const blob = { digest: digestOf(bytes), sizeBytes: bytes.length, content: { bytes } };
    await client.pushBlob(name, blob);
    const layer = { mediaType: TRACE_MEDIA_TYPE, digest: blob.digest, size: bytes.length };
    await client.pushReferrer(name, {
      ...{ schemaVersion: 2, artifactType: TRACE_ARTIFACT_TYPE },
      ...{ config: emptyDescriptor, layers: [layer] },
      subject: { ...subject, size: subject.bytes.length },
      annotations: { [WORKLOAD_ANNOTATION]: workload.key },
    });
  };
  const describe = (own: string, manifestDigest: string | null): ImageDescription => {
    const url = `${registry.url}/v2/${REPOSITORY}/blobs/sha256:${'a'.repeat(64)}`;
    const lower = { kind: 'remote', url, digest: `sha256:${'a'.repeat(64)}`, size: 1 } as const;
    return {
      ...{ name: own, lowers: [lower], upper: null, traceSource: null },
      identity: { manifestDigest, layers: [] },
    };
  };
  const { signal } = new AbortController();
  /** The trace that the registry has for an image itself. */
  const findOwn = async (own: string, manifestDigest: string) =>
    await traceFromRegistry(runtime, describe(own, manifestDigest), workload, signal);
  /** The images whose traces are found for one that is called `own`. */
  const find = async (own: string, manifestDigest: string | null): Promise<(string | null)[]> => {
    const found: (string | null)[] = [];
    registry.clearLog();
    const image = describe(own, manifestDigest);
    for await (const { reference } of olderTraces(runtime, image, workload, signal)) {
      found.push(reference);
    }
    return found;
  };
  return { registry, name, addImage, addTrace, addEmptyTrace, find, findOwn };
}

test('traces of other tags are found, the version before first, each image once', async (t) => {
  const { registry, name, addImage, addTrace, find } = await setUp(t);
  const digests: Record<string, string> = {};
  for (const tag of ['v1', 'v2', 'v3', 'v10']) digests[tag] = await addImage(tag);
  for (const tag of ['v1', 'v2']) await addTrace(tag);
  // A second name of an image.
  const second = registry.store.manifest(REPOSITORY, 'v2');
  assert.ok(second !== null);
  registry.store.putManifest(REPOSITORY, second, 'v2-final');
  const of = (tag: string): string => `${name}@${digests[tag]}`;
  assert.deepEqual(await find(`${name}:v10`, digests.v10), [of('v2'), of('v1')]);
  const asked = registry.log.filter(({ kind }) => kind === 'referrers').map(({ url }) => url);
  assert.equal(new Set(asked).size, asked.length, asked.join('\n'));
  assert.ok(!asked.some((url) => url.includes(digests.v10)), 'not those of the image itself');
  // A configuration file has no tag and no manifest.
  assert.deepEqual(await find('/run/app/config.v1.json', null), [of('v2'), of('v1')]);
});

test('a trace without records is as good as none', async (t) => {
  const { name, addImage, addTrace, addEmptyTrace, find, findOwn } = await setUp(t);
  const digest = await addImage('v1');
  const second = await addImage('v2');
  await addTrace('v1');
  await addEmptyTrace('v2');
  assert.deepEqual(await find(`${name}:v3`, null), [`${name}@${digest}`]);
  assert.notEqual(await findOwn(`${name}:v1`, digest), null);
  assert.equal(await findOwn(`${name}:v2`, second), null);
});

test('of many tags a few are looked at', async (t) => {
  const { registry, name, addImage, find } = await setUp(t);
  for (let i = 0; i < 3 * traceStoreLimits.olderTagsMax; i += 1) await addImage(`v${i}`);
  assert.deepEqual(await find(`${name}:v99`, null), []);
  const manifests = registry.log.filter(({ url }) => url.includes('/manifests/v'));
  assert.equal(manifests.length, traceStoreLimits.olderTagsMax);
});

for (const status of [401, 403, 404, 405, 500]) {
  test(`tags that are answered ${status} are none`, async (t) => {
    const { registry, name, addImage, addTrace, find } = await setUp(t);
    await addImage('v1');
    await addTrace('v1');
    registry.setFaults(({ kind }) => (kind === 'tags' ? { kind: 'status', status } : undefined));
    assert.deepEqual(await find(`${name}:v2`, null), []);
  });
}
