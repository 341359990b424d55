import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { packageRoot } from '../../src/base/package-root.ts';
import { createRegistryClient } from '../../src/registry/client.ts';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import { PASSWORD, temporaryFolder, USER } from './harness.ts';

// Goal: `replaybd registry serve` prints its URL, wants the password it was given, ends on Ctrl-C.
// Method: the command's own module in a child process.

test('replaybd registry serve', async (t) => {
  const root = temporaryFolder(t);
  const passwordFile = join(root, 'password');
  writeFileSync(passwordFile, `${PASSWORD}\n`);
  const program =
    "import { Command } from 'commander';" +
    `import { register } from ${JSON.stringify(join(packageRoot, 'src/cli/registry.ts'))};` +
    'const program = new Command(); register(program); await program.parseAsync(process.argv.slice(1), { from: "user" });';
  const script = ['--input-type=module', '-e', program];
  const options = ['--root', join(root, 'content'), '--user', USER];
  const child = spawn(
    process.execPath,
    [...script, 'registry', 'serve', ...options, '--password-file', passwordFile],
    { cwd: packageRoot, stdio: ['ignore', 'pipe', 'inherit'] },
  );
  t.after(() => child.kill('SIGKILL'));
  const ended = new AbortController();
  child.once('exit', () => ended.abort(new Error('ended before it printed a URL')));
  const lines = createInterface(child.stdout);
  const [url] = (await once(lines, 'line', { signal: ended.signal })) as [string];
  for (const [password, isRight] of [
    [PASSWORD, true],
    ['wrong', false],
  ] as const) {
    const client = createRegistryClient({ credentials: fixedCredentials(null, USER, password) });
    t.after(() => client.close());
    const ping = client.ping(`${url}/a`).then(
      () => true,
      () => false,
    );
    assert.equal(await ping, isRight);
  }
  child.kill('SIGINT');
  const [code] = (await once(child, 'exit')) as [number];
  assert.equal(code, 0);
});
