import { spawnSync } from 'node:child_process';
import { globSync } from 'node:fs';
import { parseArgs } from 'node:util';

// Runs every test file with Node's own runner. `npm test -- NAME` runs the files whose path
// contains NAME.

const { positionals } = parseArgs({ allowPositionals: true });
const files = globSync('test/**/*.test.ts').filter(
  (file) => positionals.length === 0 || positionals.some((name) => file.includes(name)),
);
const run = spawnSync(
  process.execPath,
  ['--test', '--test-concurrency=2', '--test-timeout=120000', ...files.sort()],
  { stdio: 'inherit' },
);
process.exitCode = run.status ?? 1;
