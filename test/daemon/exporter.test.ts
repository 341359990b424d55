import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Gauge, Registry } from 'prom-client';
import { request } from 'undici';
import { startExporter } from '../../src/daemon/exporter.ts';

// Goal: Prometheus gets the metrics at the configured place and nothing else; a port that is taken is
// an error that says what to change.
// Method: a real server on loopback, at a port the system chooses.

const at = { address: '127.0.0.1', port: 0, uriPrefix: '/own/metrics' };

test('metrics are served at one path, for reading', async (t) => {
  const registry = new Registry();
  new Gauge({ name: 'replaybd_test', help: 'x', registers: [registry] }).set(7);
  const exporter = await startExporter(at, registry);
  t.after(() => exporter.close());
  const answer = await request(`${exporter.url}?x=1`);
  assert.equal(answer.statusCode, 200);
  assert.match(String(answer.headers['content-type']), /^text\/plain; version=0\.0\.4/);
  assert.match(await answer.body.text(), /^replaybd_test 7$/m);
  const head = await request(exporter.url, { method: 'HEAD' });
  assert.deepEqual([head.statusCode, await head.body.text()], [200, '']);
  const post = await request(exporter.url, { method: 'POST', body: 'x'.repeat(100_000) });
  assert.equal(post.statusCode, 405);
  await post.body.dump();
  const other = await request(`${exporter.url}/below`);
  assert.equal(other.statusCode, 404);
  await other.body.dump();
});

test('metrics that fail are a 500 without details', async (t) => {
  const registry = new Registry();
  const collect = () => {
    throw new Error('secret detail');
  };
  new Gauge({ name: 'replaybd_test', help: 'x', registers: [registry], collect });
  const exporter = await startExporter(at, registry);
  t.after(() => exporter.close());
  const answer = await request(exporter.url);
  assert.equal(answer.statusCode, 500);
  assert.ok(!(await answer.body.text()).includes('secret'));
});

test('a port that is taken is told', async (t) => {
  const exporter = await startExporter(at, new Registry());
  t.after(() => exporter.close());
  const port = Number(new URL(exporter.url).port);
  await assert.rejects(startExporter({ ...at, port }, new Registry()), {
    code: 'ERR_EXPORTER',
    message: /EADDRINUSE.*exporterConfig\.port/,
  });
});
