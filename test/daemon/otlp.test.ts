import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cpSync } from 'node:fs';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { pino } from 'pino';
import { packageRoot } from '../../src/base/package-root.ts';
import { Attachment, type AttachMode } from '../../src/daemon/attachment.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
} from '../../src/registry/embedded/server.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { Attached } from '../support/attached.ts';
import { cli } from '../support/cli.ts';
import { Scratch, scratchOf } from '../support/scratch.ts';
import { makeTestImage, type TestImage } from '../support/test-image.ts';

// Goal: an attach can be followed as spans by a collector, which may fail or hang without harm, and
// nothing of that is loaded when nobody asks. What the metrics say of the same runs adds up.
// Method: runs of a real image against an HTTP server that takes OTLP, misbehaves, or does not answer.

const fixture = new Scratch();
let registry: EmbeddedRegistry;
let image: TestImage;

before(async () => {
  registry = await startEmbeddedRegistry({ root: fixture.path('registry') });
  fixture.atEnd(() => registry.close());
  const rootfs = fixture.path('rootfs');
  cpSync(join(packageRoot, 'node_modules', 'undici'), rootfs, { recursive: true });
  image = await makeTestImage(fixture, registry.url, [rootfs], 16);
});
after(() => fixture.close());

interface OtlpSpan {
  name: string;
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  startTimeUnixNano: string;
  endTimeUnixNano: string;
  attributes: { key: string; value: Record<string, unknown> }[];
  status: { code?: number; message?: string };
}

interface Collector {
  readonly url: string;
  readonly spans: OtlpSpan[];
  requests: number;
}

/** `status` 0: takes requests and does not answer. */
async function startCollector(scratch: Scratch, status = 200): Promise<Collector> {
  const collector = { url: '', spans: [] as OtlpSpan[], requests: 0 };
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      collector.requests += 1;
      assert.equal(request.headers['content-type'], 'application/json');
      const body = JSON.parse(Buffer.concat(chunks).toString()) as {
        resourceSpans: { scopeSpans: { spans: OtlpSpan[] }[] }[];
      };
      for (const { scopeSpans } of body.resourceSpans) {
        for (const { spans } of scopeSpans) collector.spans.push(...spans);
      }
      if (status !== 0)
        response.writeHead(status, { 'content-type': 'application/json' }).end('{}');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  scratch.atEnd(() => {
    server.close();
    server.closeAllConnections();
  });
  collector.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`;
  return collector;
}

interface Run {
  runtime: Runtime;
  attachment: Attachment;
  log: string[];
}

async function attach(
  scratch: Scratch,
  mode: AttachMode,
  otlpEndpoint?: string,
  target = image.reference,
): Promise<Run> {
  const log: string[] = [];
  const runtime = await Runtime.open({
    cacheFolder: null,
    quotaBytes: 2 ** 30,
    traceFolder: scratch.path('traces'),
    log: pino({ level: 'warn' }, { write: (line) => void log.push(line) }),
    ...(otlpEndpoint === undefined ? {} : { otlpEndpoint }),
  });
  scratch.atEnd(() => runtime.close());
  const workload = describeWorkload(['test'], []);
  const attachment = await Attachment.open(runtime, { id: 'd', target, mode, workload });
  scratch.atEnd(() => attachment.close());
  return { runtime, attachment, log };
}

async function readDisk({ device }: Attachment, endBytes: number): Promise<void> {
  const into = Buffer.alloc(65_536);
  for (let offset = 0; offset < endBytes; offset += into.length) {
    if (!device.readCached(offset, into)) await device.read(offset, into);
  }
}

function attributesOf({ attributes }: OtlpSpan): Record<string, unknown> {
  return Object.fromEntries(
    attributes.map(({ key, value }) => [key, Object.values(value).at(0)] as const),
  );
}

/** Span names with their attributes; all below one root, which begins first. */
function treeOf(spans: readonly OtlpSpan[]): Map<string, OtlpSpan> {
  const root = spans.find(({ name }) => name === 'attach');
  assert.ok(root !== undefined);
  assert.ok(root.parentSpanId === undefined || root.parentSpanId === '');
  for (const span of spans) {
    assert.equal(span.traceId, root.traceId);
    if (span !== root) assert.equal(span.parentSpanId, root.spanId, span.name);
    assert.ok(BigInt(span.endTimeUnixNano) >= BigInt(span.startTimeUnixNano), span.name);
    assert.ok(BigInt(span.startTimeUnixNano) >= BigInt(root.startTimeUnixNano), span.name);
  }
  return new Map(spans.map((span) => [span.name, span]));
}

async function seriesOf(runtime: Runtime): Promise<(series: string) => number> {
  const text = await runtime.metrics.registry.metrics();
  return (series) => {
    const line = text.split('\n').find((one) => one.startsWith(`${series} `));
    assert.ok(line !== undefined, series);
    return Number(line.slice(series.length + 1));
  };
}

const outcome = (name: string): string => `replaybd_prefetch_bytes_total{outcome="${name}"}`;

test('a recorded and a replayed attach are told as spans, and as metrics that add up', async (t) => {
  const scratch = scratchOf(t);
  const first = await startCollector(scratch);
  const recorded = await attach(scratch, 'record', first.url);
  await readDisk(recorded.attachment, image.virtualSizeBytes);
  const since = await seriesOf(recorded.runtime);
  assert.ok(since('replaybd_last_demand_miss_seconds{device="d"}') > 0);
  assert.equal(since('replaybd_prefetch_untouched_bytes{device="d"}'), 0);
  await recorded.attachment.close();
  await recorded.runtime.close();
  const lazy = treeOf(first.spans);
  assert.deepEqual([...lazy.keys()].sort(), [
    ...['attach', 'first read', 'manifest', 'open layers', 'steady', 'trace read'],
  ]);

  const second = await startCollector(scratch);
  const { runtime, attachment } = await attach(scratch, 'replay', second.url);
  await attachment.replay?.finished;
  await readDisk(attachment, image.virtualSizeBytes / 8);
  attachment.report();
  const open = await seriesOf(runtime);
  const untouched = open('replaybd_prefetch_untouched_bytes{device="d"}');
  assert.ok(untouched > 0, 'an eighth of the disk was read');
  assert.equal(open(outcome('unused')), 0);
  assert.equal(open('replaybd_trace_stale_ratio{device="d"}'), 0);
  assert.ok(open('replaybd_trace_age_seconds{device="d"}') >= 0);
  assert.ok(open(outcome('used')) > 0);
  const fetched = open('replaybd_fetched_bytes_total{device="d",lane="prefetch"}');
  assert.equal(open(outcome('used')) + open(outcome('late')) + untouched, fetched);
  await attachment.close();
  const closed = await seriesOf(runtime);
  assert.equal(closed(outcome('unused')), untouched);
  assert.equal(closed(outcome('used')), open(outcome('used')), 'what was used stays so');
  await runtime.close();
  const spans = treeOf(second.spans);
  assert.deepEqual([...spans.keys()].sort(), [
    ...['attach', 'first prefetch request', 'first read', 'manifest', 'open layers'],
    ...['steady', 'trace read'],
  ]);
  const of = (name: string): OtlpSpan => spans.get(name) ?? assert.fail(name);
  assert.deepEqual(attributesOf(of('attach')), {
    'replaybd.device': 'd',
    'replaybd.image': image.reference,
    'replaybd.mode': 'replay',
    'replaybd.layers': image.layers.length,
    'replaybd.size_bytes': image.virtualSizeBytes,
  });
  assert.deepEqual(attributesOf(of('trace read')), { 'replaybd.mode': 'replay' });
  assert.ok(Number(attributesOf(of('first prefetch request'))['replaybd.bytes']) > 0);
  assert.deepEqual(attributesOf(of('first read')), { 'replaybd.source': 'local' });
  assert.deepEqual(attributesOf(of('steady')), { 'replaybd.demand_misses': 0 });
  assert.ok(of('steady').startTimeUnixNano >= of('attach').endTimeUnixNano.slice(0, -6));
});

test('an attach that fails is a span with the code of its error', async (t) => {
  const scratch = scratchOf(t);
  const collector = await startCollector(scratch);
  const target = `${registry.url}/not/there:v1`;
  await assert.rejects(attach(scratch, 'off', collector.url, target));
  await scratch.close();
  const spans = treeOf(collector.spans);
  for (const name of ['attach', 'manifest']) {
    const { status } = spans.get(name) ?? assert.fail(name);
    assert.equal(status.code, 2);
    assert.match(status.message ?? '', /^ERR_/);
  }
});

for (const [name, status] of [
  ['refuses spans', 400],
  ['does not answer', 0],
] as const) {
  test(`a collector that ${name} costs a line in the log`, async (t) => {
    const scratch = scratchOf(t);
    const collector = await startCollector(scratch, status);
    const { runtime, attachment, log } = await attach(scratch, 'off', collector.url);
    await readDisk(attachment, 2 ** 20);
    await attachment.close();
    await runtime.close();
    assert.ok(collector.requests > 0);
    // One that does not answer is given up when the process ends, before it fails.
    if (status !== 0) assert.match(log.join(''), /spans cannot be sent, and are lost/);
  });
}

test('attach --otel sends what it has before it ends', async (t) => {
  const scratch = scratchOf(t);
  const collector = await startCollector(scratch);
  const args = ['--frontend', 'none', '--cache', 'none', '--otel', collector.url];
  const attached = await Attached.start(scratch, [image.reference, ...args]);
  await attached.detach();
  assert.ok(treeOf(collector.spans).has('steady'));
  const wrong = await cli(scratch, ['attach', image.reference, '--otel', '127.0.0.1:4318']);
  assert.equal(wrong.code, 2);
});

test('without an endpoint nothing of it is loaded', async () => {
  const runtimeUrl = new URL('../../src/daemon/runtime.ts', import.meta.url).href;
  const script = (endpoint: string): string => `
    import { registerHooks } from 'node:module';
    const loaded = [];
    registerHooks({
      resolve(specifier, context, next) {
        const found = next(specifier, context);
        loaded.push(found.url);
        return found;
      },
    });
    const { Runtime } = await import(${JSON.stringify(runtimeUrl)});
    const runtime = await Runtime.open({ cacheFolder: null, quotaBytes: 1048576, ${endpoint} });
    await runtime.close();
    console.log(loaded.some((url) => /otlp|sdk-trace/.test(url)));
  `;
  const run = async (endpoint: string): Promise<string> => {
    const args = ['--input-type=module', '-e', script(endpoint)];
    return (await promisify(execFile)(process.execPath, args)).stdout.trim();
  };
  assert.equal(await run(''), 'false');
  assert.equal(await run("otlpEndpoint: 'http://127.0.0.1:9/v1/traces'"), 'true');
});
