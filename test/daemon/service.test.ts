import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import type { FetchEvent } from '../../src/blob/fetch/fetch-stats.ts';
import { parseServiceConfig } from '../../src/daemon/service-config.ts';
import { Service } from '../../src/daemon/service.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: what overlaybd.json says of the log and the audit log is what a daemon does, also after a log
// rotation; nothing of it stops the daemon when it fails.
// Method: real files, and a real SIGHUP to this process.

/** A runtime whose fetches are made up. */
class Source {
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
        startedMs: 0,
        durationMs: 0,
        error: null,
      });
    }
  }
}

const textOf = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

test('log and audit log are where the configuration says, and follow SIGHUP', async (t) => {
  const scratch = scratchOf(t);
  const [log, audit] = [scratch.path('log'), scratch.path('audit')];
  const text = JSON.stringify({
    logConfig: { logLevel: 1, logPath: log },
    auditPath: audit,
    ioEngine: 0,
  });
  const service = new Service({ config: parseServiceConfig(text, 'file'), env: {} });
  t.after(() => service.close());
  const source = new Source();
  service.watch(source);
  source.fetched(1);
  service.audit('attach', { pathname: 'one', latency: 5 });
  while (textOf(audit).split('\n').length < 3 || !textOf(log).includes('ioEngine')) {
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

test('an audit log that cannot be written stops nothing', async (t) => {
  const scratch = scratchOf(t);
  const text = JSON.stringify({
    auditPath: scratch.path('none', 'audit'),
    logPath: scratch.path('log'),
  });
  const service = new Service({ config: parseServiceConfig(text, 'file'), env: {} });
  const source = new Source();
  service.watch(source);
  source.fetched(1);
  while (!textOf(scratch.path('log')).includes('audit log: ')) await sleep(1);
  await service.close();
});

test('without a configuration nothing is written', async () => {
  const service = new Service({ config: null, logLevel: 'silent', env: {} });
  const source = new Source();
  service.watch(source);
  assert.equal(source.listeners.size, 0);
  service.audit('attach', {});
  await service.close();
});
