import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestEvent } from 'node:test/reporters';
import { packageRoot } from '../../src/base/package-root.ts';

/**
 * A node:test reporter that prints, after everything else, what was skipped and why. With
 * REPLAYBD_TEST_NO_SKIPS=1 a skip counts as a failure (continuous integration installs all that the
 * tests need).
 */
export default async function* skipsReporter(
  source: AsyncIterable<TestEvent>,
): AsyncIterable<string> {
  const reasons = new Map<string, string[]>();
  for await (const event of source) {
    if (event.type !== 'test:pass' || event.data.skip === undefined) continue;
    const reason = event.data.skip === true ? 'no reason given' : String(event.data.skip);
    reasons.set(reason, [...(reasons.get(reason) ?? []), event.data.name]);
  }
  if (reasons.size === 0) return;
  yield '\nSkipped on this machine:\n';
  for (const [reason, names] of reasons) {
    yield `  ${reason}\n${names.map((name) => `    - ${name}\n`).join('')}`;
  }
  yield 'To run all of them (Debian or Ubuntu):\n';
  yield `  sudo apt-get install -y ${enablingPackages().join(' ')} && sudo npm test\n`;
  if (process.env.REPLAYBD_TEST_NO_SKIPS === '1') process.exitCode = 1;
}

/** What tests need beside Node; .ci/run installs the same. */
function enablingPackages(): string[] {
  return readFileSync(join(packageRoot, '.ci/packages'), 'utf8').trim().split('\n');
}
