import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { request } from 'undici';
import type { FetchEvent } from '../../src/blob/fetch/fetch-stats.ts';
import { parseServiceConfig } from '../../src/daemon/service-config.ts';
import { Service } from '../../src/daemon/service.ts';
import { PrefetchMetrics } from '../../src/prefetch/metrics.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: what overlaybd.json says of logs, audit and metrics is what a daemon does, also after a log
// rotation; nothing of it stops the daemon when it fails.
// Method: real files, a real SIGHUP to this process, and a port.

/** A runtime whose fetches are made up. */
class Source {
  readonly metrics = new PrefetchMetrics();
  readonly listeners = new Set<(event: FetchEvent) => void>();

  onFetch(listener: (event: FetchEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  fetched(offset: number): void {
    for (const listener of this.listeners) {
      listener({
        lane: 'demand',
        digest: 'sha256:00',
        ranges: [{ offset, length: 1 }],
        askedBytes: 1,
        bytes: 1,
        firstByteMs: 0,
        durationMs: 0,
        error: null,
      });
    }
  }
}

const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

test('logs, audit and metrics are where the configuration says, and follow SIGHUP', async (t) => {
  const scratch = scratchOf(t);
  const [log, audit] = [scratch.path('log'), scratch.path('audit')];
  const text = JSON.stringify({
    logConfig: { logLevel: 1, logPath: log },
    auditPath: audit,
    ioEngine: 0,
    exporterConfig: { enable: true, port: 0, uriPrefix: '/m' },
  });
  const service = new Service({ config: parseServiceConfig(text, 'file'), env: {} });
  t.after(() => service.close());
  const source = new Source();
  await service.watch(source);
  source.fetched(1);
  service.audit('attach', { pathname: 'one', latency: 5 });
  const answer = await request(service.metricsUrl ?? '');
  assert.match(await answer.body.text(), /replaybd_/);
  while (textOf(audit).split('\n').length < 3 || !textOf(log).includes('metrics are')) {
    await sleep(1);
  }
  assert.match(
    textOf(audit),
    /download\[pathname=sha256:00\]\[offset=1\].*\n.*\|attach\[pathname=one\]/,
  );
  assert.match(textOf(log), /"key":"ioEngine","reason":"local files are mapped into memory"/);

  renameSync(log, `${log}.1`);
  renameSync(audit, `${audit}.1`);
  process.kill(process.pid, 'SIGHUP');
  while (!textOf(log).includes('opened again')) await sleep(1);
  source.fetched(2);
  await service.close();
  assert.match(textOf(audit), /offset=2/);
  assert.doesNotMatch(textOf(`${audit}.1`), /offset=2/);
  assert.equal(source.listeners.size, 0);
  assert.equal(process.listenerCount('SIGHUP'), 0);
});

test('logs and ports that cannot be had stop nothing', async (t) => {
  const scratch = scratchOf(t);
  const text = JSON.stringify({
    auditPath: scratch.path('none', 'audit'),
    logPath: scratch.path('log'),
    replaybd: { exporterAddress: '192.0.2.1' },
    exporterConfig: { enable: true },
  });
  const service = new Service({ config: parseServiceConfig(text, 'file'), env: {} });
  const source = new Source();
  await service.watch(source);
  source.fetched(1);
  assert.equal(service.metricsUrl, null);
  while (!textOf(scratch.path('log')).includes('audit log: ')) await sleep(1);
  await service.close();
  assert.match(textOf(scratch.path('log')), /exporter: cannot listen on 192\.0\.2\.1 port 9863/);
});

test('without a configuration nothing is written or served', async () => {
  const service = new Service({ config: null, logLevel: 'silent', env: {} });
  const source = new Source();
  await service.watch(source);
  assert.equal(source.listeners.size, 0);
  assert.equal(service.metricsUrl, null);
  service.audit('attach', {});
  await service.close();
});
