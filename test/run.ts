import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { parseArgs } from 'node:util';

// Runs the test files with Node's own runner. `npm test -- NAME` runs those whose path has NAME in it.

const { positionals } = parseArgs({ allowPositionals: true });
const files = globSync('test/**/*.test.ts').filter(
  (file) => positionals.length === 0 || positionals.some((name) => file.includes(name)),
);
if (files.length === 0) {
  process.stderr.write(`no test file has ${positionals.join(' or ')} in its path\n`);
  process.exit(1);
}
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
  { stdio: 'inherit' },
);
process.exitCode = run.status ?? 1;
