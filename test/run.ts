import { spawnSync } from 'node:child_process';
import { globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

// Runs the test files with Node's own runner. `npm test -- NAME` runs those whose path has NAME in it.
// Devices that tests attach keep their traces in a store of this run, not in the machine's.

const { positionals } = parseArgs({ allowPositionals: true });
const files = globSync('test/**/*.test.ts').filter(
  (file) => positionals.length === 0 || positionals.some((name) => file.includes(name)),
);
if (files.length === 0) {
  process.stderr.write(`no test file has ${positionals.join(' or ')} in its path\n`);
  process.exit(1);
}
const stateHome = mkdtempSync(join(tmpdir(), 'replaybd-tests-'));
const reporters = ['spec', './test/support/skips-reporter.ts'];
const run = spawnSync(
  process.execPath,
  [
    '--test',
    '--test-concurrency=2',
    '--test-timeout=180000',
    ...reporters.flatMap((name) => [
      `--test-reporter=${name}`,
      '--test-reporter-destination=stdout',
    ]),
    ...files.sort(),
  ],
  { stdio: 'inherit', env: { ...process.env, XDG_STATE_HOME: stateHome } },
);
rmSync(stateHome, { recursive: true, force: true });
process.exitCode = run.status ?? 1;
