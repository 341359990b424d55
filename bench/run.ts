import { spawnSync } from 'node:child_process';
import { existsSync, globSync } from 'node:fs';
import { basename } from 'node:path';

// `npm run bench NAME [-- flags]`: runs one question's measurement from the built project.

const [name = '', ...flags] = process.argv.slice(2);
const script = `dist/bench/${name}.js`;
if (name === 'run' || !existsSync(script)) {
  const names = globSync('bench/*.ts').map((path) => basename(path, '.ts'));
  process.stderr.write(
    `usage: npm run bench NAME [-- flags]\nnames: ${names.filter((n) => n !== 'run').join(', ')}\n`,
  );
  process.exit(2);
}
const result = spawnSync(process.execPath, ['--max-semi-space-size=1', script, ...flags], {
  stdio: 'inherit',
});
process.exitCode = result.status ?? 1;
