import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { AuditLog, auditLine } from '../../src/daemon/audit-log.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: the audit log has overlaybd's lines, one for each range that was fetched, and no value can
// forge another line or another member.
// Method: a real file, and arbitrary values that are parsed again.

const LINE =
  /^(\d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d\.\d{6})\|AUDIT\|th=[0-9A-F]{16}\|([^[\]]+)((?:\[[a-z]+=[^[\]]*\])*)\n$/;

test('each range of a fetch is a line', async (t) => {
  const path = scratchOf(t).path('audit.log');
  const audit = new AuditLog(path);
  const event = {
    lane: 'demand' as const,
    digest: 'sha256:00ff',
    ranges: [
      { offset: 0, length: 4096 },
      { offset: 65_536, length: 8192 },
    ],
    askedBytes: 12_288,
    bytes: 12_288,
    firstByteMs: 1,
    startedMs: 0,
    durationMs: 2.5,
    error: null,
  };
  audit.recordFetch(event);
  audit.recordFetch({ ...event, lane: 'prefetch', error: new ReplaybdError('ERR_NETWORK', 'x') });
  await audit.close();
  const lines = readFileSync(path, 'utf8').split(/(?<=\n)/);
  const members = lines.map((line) => LINE.exec(line)?.slice(2).join(' '));
  const first = 'download [pathname=sha256:00ff][offset=0][size=4096][latency=2500]';
  const second = 'download [pathname=sha256:00ff][offset=65536][size=8192][latency=2500]';
  assert.deepEqual(members, [
    `${first}[lane=demand]`,
    `${second}[lane=demand]`,
    `${first}[lane=prefetch][error=ERR_NETWORK]`,
    `${second}[lane=prefetch][error=ERR_NETWORK]`,
  ]);
});

test('times are local, with microseconds', () => {
  const line = auditLine(new Date(2026, 0, 2, 3, 4, 5, 67).getTime(), 'attach', { pathname: 'a' });
  assert.equal(LINE.exec(line)?.[1], '2026/01/02 03:04:05.067000');
});

test('no value forges a line or a member', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const line = auditLine(0, 'attach', { pathname: text, offset: 1 });
      const found = LINE.exec(line.replaceAll(/[^\n\u0020-\u007e]/g, '.'));
      assert.ok(found !== null, JSON.stringify(line));
      assert.match(found[3], /^\[pathname=[^[\]]*\]\[offset=1\]$/);
    }),
  );
});
