import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { cli } from '../support/cli.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: a command that asks a daemon, and help, start soon: they load no more than they use. Method: the
// tool with a hook that names every module.

const HOOK = `
import { registerHooks } from 'node:module';
registerHooks({
  load: (url, context, next) => {
    if (url.startsWith('file:')) process.stderr.write('LOADED ' + url + '\\n');
    return next(url, context);
  },
});
`;

async function loadedBy(scratch: Scratch, ...words: string[]): Promise<string[]> {
  writeFileSync(scratch.path('hook.mjs'), HOOK);
  const env = { NODE_OPTIONS: `--import=${scratch.path('hook.mjs')}` };
  const { stderr } = await cli(scratch, words, { env });
  return stderr.split('\n').filter((line) => line.startsWith('LOADED '));
}

const HEAVY =
  /node_modules\/(undici|prom-client|pino|ink|react|koffi|@opentelemetry)\/|daemon\/daemon\./;

test('what asks a daemon loads neither its modules nor a registry client', async (t) => {
  const scratch = scratchOf(t);
  const socket = ['--socket', scratch.path('none')];
  for (const words of [
    ['ls', ...socket],
    ['stats', ...socket],
    ['detach', ...socket],
    ['snapshot', ...socket],
    ['fork', 'device', scratch.path('folder'), ...socket],
    ['attach', '--daemon', 'image', ...socket],
  ]) {
    const loaded = await loadedBy(scratch, ...words);
    assert.ok(loaded.length > 10, words.join(' '));
    assert.deepEqual(
      loaded.filter((line) => HEAVY.test(line)),
      [],
      words.join(' '),
    );
  }
});

test('help and the version load what they show', async (t) => {
  const scratch = scratchOf(t);
  const help = await loadedBy(scratch, '--help');
  const terminal = help.filter((line) =>
    /node_modules\/(ink|react|undici|prom-client)\//.test(line),
  );
  assert.deepEqual(terminal, []);
  const version = await loadedBy(scratch, '--version');
  assert.deepEqual(
    version.filter((line) => /cli\/(ls|attach)\./.test(line)),
    [],
  );
});
