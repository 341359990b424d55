import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { createLogger } from '../../src/base/log.ts';
import { olderImageOf, rebaseForImage } from '../../src/daemon/rebase-image.ts';
import { Runtime } from '../../src/daemon/runtime.ts';
import { withTraceImage } from '../../src/daemon/trace-image.ts';
import { decodeTrace } from '../../src/trace/decode.ts';
import type { Rebased } from '../../src/trace/rebase.ts';
import { describeWorkload, type Trace } from '../../src/trace/trace.ts';
import { cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { Scratch } from '../support/scratch.ts';
import { makeRootfs } from '../support/test-image.ts';

// Goal: an attach gets a rebased trace of what is there, and is never failed by what is not.
// Method: two versions of an image in one repository, and a trace of all files of the first; the old image
// is there, is missing, is another one; the work is aborted.

const skip = needs('mke2fs');
const fixture = new Scratch();
const tags = { v1: '', v2: '' };
let trace: Trace;
let logs = 0;

before(async () => {
  if (skip !== false) return;
  const url = await serveRegistry(fixture, fixture.path('registry'));
  const [base, first] = makeRootfs(fixture);
  const second = fixture.path('second');
  cpSync(first, second, { recursive: true });
  const entry = join(second, 'modules/eslint/package.json');
  writeFileSync(entry, readFileSync(entry, 'utf8').replace('{', '{ "changed": true,'));
  for (const [tag, app] of [
    ['v1', first],
    ['v2', second],
  ] as const) {
    tags[tag] = `${url}/rebase/image:${tag}`;
    const rootfs = ['--rootfs', base, '--rootfs', app];
    await cliOutput(fixture, ['image', 'build', '--push', tags[tag], ...rootfs]);
  }
  const [list, path] = [fixture.path('list'), fixture.path('trace')];
  writeFileSync(list, '/modules/\n');
  const target = ['--image', tags.v1, '--cache', 'none', '-o', path];
  await cliOutput(fixture, ['trace', 'import', list, ...target]);
  trace = decodeTrace(readFileSync(path));
});
after(() => fixture.close());

/** What an attach of the second version would get, and the warnings in the log. */
async function rebase(
  oldImage: string | null,
  signal = new AbortController().signal,
): Promise<{ rebased: Rebased | null; log: string }> {
  const logFile = fixture.path(`log-${(logs += 1)}`);
  const log = createLogger({ level: 'warn', path: logFile });
  const runtime = await Runtime.open({ cacheFolder: null, quotaBytes: 2 ** 30, log });
  try {
    const workload = describeWorkload([], []);
    const rebased = await withTraceImage(runtime, tags.v2, workload, ({ image, stack }) =>
      rebaseForImage(runtime, { name: tags.v2, image, stack }, trace, oldImage, signal),
    );
    return { rebased, log: readFileSync(logFile, 'utf8') };
  } finally {
    await runtime.close();
  }
}

test('the older image is found by its digest, and files through it', { skip }, async () => {
  const older = olderImageOf(tags.v2, trace);
  assert.ok(older !== null && trace.image.manifestDigest !== null);
  assert.ok(older.endsWith(`/rebase/image@${trace.image.manifestDigest}`), older);
  const { rebased, log } = await rebase(older);
  assert.ok(rebased !== null);
  const { kept, mapped, dropped } = rebased.facts;
  assert.ok(kept.sectors > 0 && mapped.sectors > 0);
  assert.ok(dropped.sectors <= mapped.sectors / 20, `${dropped.sectors} of ${mapped.sectors}`);
  assert.equal(log, '');
});

test('without the older image, what is kept is all there is', { skip }, async () => {
  for (const older of [null, `${tags.v1}-gone`, tags.v2]) {
    const { rebased, log } = await rebase(older);
    assert.ok(rebased !== null);
    assert.ok(rebased.facts.kept.sectors > 0);
    assert.equal(rebased.facts.mapped.sectors, 0);
    assert.equal(log !== '', older !== null, 'which is a warning');
  }
});

test('one that is aborted gives nothing, and says nothing', { skip }, async () => {
  const { rebased, log } = await rebase(olderImageOf(tags.v2, trace), AbortSignal.abort());
  assert.deepEqual([rebased, log], [null, '']);
});

test('names that no older image follows from', () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  const of = (target: string, manifestDigest: string | null) =>
    olderImageOf(target, { image: { manifestDigest, virtualSizeBytes: 0, layers: [] } });
  assert.equal(of('/some/config.v1.json', digest), null);
  assert.equal(of('registry.example/team/app:v2', null), null);
  assert.equal(of('not a reference', digest), null);
  assert.equal(
    of('http://registry.example/team/app:v2', digest),
    `http://registry.example/team/app@${digest}`,
  );
});
