import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { isNodeSupported, NODE_VERSION_MIN } from '../../src/base/node-version.ts';
import { cli } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: a Node.js that is too old says so in a line, instead of the stack of what it cannot load.
// Method: this Node.js, which says that it is an older one; what is imported before the check is read.

const fileText = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');

test('the oldest Node is that of package.json', () => {
  const { engines } = JSON.parse(fileText('package.json')) as { engines: { node: string } };
  assert.equal(engines.node, `>=${NODE_VERSION_MIN}`);
  const [major, minor] = NODE_VERSION_MIN.split('.').map(Number);
  assert.ok(isNodeSupported(`${NODE_VERSION_MIN}.0`));
  assert.ok(isNodeSupported(`${major + 1}.0.0`));
  assert.ok(!isNodeSupported(`${major}.${minor - 1}.9`));
  assert.ok(!isNodeSupported(`${major - 1}.${minor}.0`));
});

test('an older Node is refused in a line, before anything else is loaded', async (t) => {
  const older = '{ ...process.versions, node: "20.1.0" }';
  const script = `Object.defineProperty(process, "versions", { value: ${older} })`;
  const env = {
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(script)}`,
  };
  const { code, stdout, stderr } = await cli(scratchOf(t), ['ls'], { env });
  assert.deepEqual([code, stdout], [1, '']);
  assert.match(
    stderr,
    /^replaybd: expected Node\.js 22\.19 or later, found 20\.1\.0 .*\(ERR_NODE_VERSION\)\n$/,
  );
  const early = /from '(.*)'/g;
  const imported = [...fileText('src/cli/main.ts').matchAll(early)].map(([, path]) => path);
  assert.deepEqual(imported, ['../base/node-version.ts']);
  assert.doesNotMatch(fileText('src/base/node-version.ts'), /\bimport\b/);
});
