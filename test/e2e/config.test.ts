import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ForkFacts } from '../../src/daemon/fork.ts';
import { expectations, fixtures, removeFolder, unpackFixtures } from '../image/lsmt-support.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { writeWholeDiskList, type PlayOutput } from '../support/play.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';

// Goal: a config.v1.json written for overlaybd works as it is: the disk is the one that the original
// reads, and its snapshotter is told how opening went, in the words it knows.
// Method: the configurations and layers that the original tools wrote, with their folder filled in.

const expected = expectations['stack3/layer2.lsmt'];

/** The original's files in the test's folder, and a configuration with its placeholder filled in. */
function configOf(scratch: Scratch, name: string): string {
  const unpacked = unpackFixtures();
  scratch.atEnd(() => removeFolder(unpacked));
  cpSync(fixtures, scratch.path('lsmt'), { recursive: true });
  // Holes of a sparse layer have to stay holes.
  execFileSync('cp', ['-aT', join(unpacked, 'lsmt'), scratch.path('lsmt')]);
  const config = scratch.path(name);
  const text = readFileSync(join(fixtures, 'stack3', name), 'utf8');
  writeFileSync(config, text.replaceAll('FIXTURES', scratch.folder));
  return config;
}

function playArgs(scratch: Scratch, config: string): string[] {
  const list = scratch.path('whole-disk');
  writeWholeDiskList(list, expected.virtualSizeBytes ?? 0);
  const folders = ['--cache', 'none', '--trace-dir', scratch.path('traces')];
  return ['play', config, '--reads', list, ...folders];
}

test('the disk of three layers is the one that the original reads', async (t) => {
  const scratch = scratchOf(t);
  const config = configOf(scratch, 'config.v1.json');
  assert.equal(await cliOutput(scratch, ['export', config, '--sha256']), expected.sha256);
  const played = await cliJson<PlayOutput>(scratch, playArgs(scratch, config));
  assert.equal(played.sha256, expected.sha256);
  assert.equal(played.report.layers, 3);
  const { mode, quality } = played.report;
  assert.equal(mode, 'off');
  assert.equal(quality.hits, played.reads, 'reads are counted without a trace too');
  assert.ok(quality.touchedBytes.cached > 0);
  assert.equal(readFileSync(scratch.path('result'), 'utf8'), 'success');
});

test('local layers have traces too', async (t) => {
  const scratch = scratchOf(t);
  const args = [...playArgs(scratch, configOf(scratch, 'config.v1.json')), '--mode', 'auto'];
  const first = await cliJson<PlayOutput>(scratch, args);
  assert.equal(first.report.mode, 'record');
  const second = await cliJson<PlayOutput>(scratch, args);
  assert.equal(second.report.mode, 'replay');
  assert.equal(second.report.trace?.path, first.report.trace?.path);
  assert.equal(second.sha256, expected.sha256);
});

test('a failure is told to the snapshotter in its words', async (t) => {
  const scratch = scratchOf(t);
  const config = configOf(scratch, 'config.v1.json');
  const layer = scratch.path('lsmt/stack3/layer1.zstd-16k.obd');
  writeFileSync(layer, readFileSync(layer).subarray(0, 60_000));
  const { code, stderr } = await cli(scratch, playArgs(scratch, config));
  assert.equal(code, 1);
  assert.ok(stderr.includes(layer), 'the damaged layer is named');
  const result = readFileSync(scratch.path('result'), 'utf8');
  assert.match(result, /^failed:\S/);
  assert.ok(result.includes(layer) && !result.includes('\n'));
});

test('a result file that cannot be written costs a line in the log', async (t) => {
  const scratch = scratchOf(t);
  const config = configOf(scratch, 'config.v1.json');
  const missing = scratch.path('no/such/folder/result');
  const text = readFileSync(config, 'utf8').replace(scratch.path('result'), missing);
  writeFileSync(config, text);
  const { code, stdout, stderr } = await cli(scratch, playArgs(scratch, config));
  assert.equal(code, 0, stderr);
  assert.ok(stdout.includes(expected.sha256));
  assert.ok(stderr.includes(missing) && stderr.includes('ENOENT'));
});

for (const name of ['upper', 'upper.sparse']) {
  test(`the original's writable layer is served, and taken further: ${name}`, async (t) => {
    const scratch = scratchOf(t);
    const config = configOf(scratch, 'config.upper.v1.json');
    const text = readFileSync(config, 'utf8').replaceAll('/upper.', `/${name}.`);
    writeFileSync(config, text);
    const { sha256 } = expectations[`stack3/${name}.{data,index}`];
    const played = await cliJson<PlayOutput>(scratch, playArgs(scratch, config));
    assert.equal(played.sha256, sha256);
    assert.equal(readFileSync(scratch.path('result'), 'utf8'), 'success');
    const forked = scratch.path('fork');
    const facts = await cliJson<ForkFacts>(scratch, ['fork', config, forked, '--cache', 'none']);
    assert.equal(facts.snapshot?.lowers, 4, 'what the original wrote is sealed');
    for (const one of [config, join(forked, 'config.v1.json')]) {
      assert.equal(await cliOutput(scratch, ['export', one, '--sha256']), sha256);
    }
  });
}

test('a writable layer for TurboOCI is refused by name', async (t) => {
  const scratch = scratchOf(t);
  const config = configOf(scratch, 'config.upper.v1.json');
  const text = readFileSync(config, 'utf8').replace('"upper": {', '"upper": {"target": "x",');
  writeFileSync(config, text);
  const { code, stderr } = await cli(scratch, playArgs(scratch, config));
  assert.equal(code, 1);
  assert.match(stderr, /\$\.upper: .*ERR_CONFIG_UNSUPPORTED/);
  assert.match(readFileSync(scratch.path('result'), 'utf8'), /^failed:.*\$\.upper: /);
});

test('a mistake in a configuration is named with its place', async (t) => {
  const scratch = scratchOf(t);
  const config = scratch.path('wrong.json');
  const mistakes: [unknown, RegExp][] = [
    [{ lowers: 'none' }, /\$\.lowers.*ERR_CONFIG_TYPE/],
    [{ lowers: [] }, /\$\.lowers: expected 1 to 255 layers, found 0.*ERR_CONFIG_LOWERS/],
    [{ lowers: [{ file: 7 }] }, /\$\.lowers\[0\]\.file.*ERR_CONFIG_TYPE/],
    [{ lowers: [{ file: '/no/such/layer' }] }, /\$\.lowers\[0\].*\/no\/such\/layer/],
    [{ lowers: [{ digest: 'sha256:xyz', size: 1 }] }, /\$\.lowers\[0\]\.digest.*ERR_CONFIG_DIGEST/],
  ];
  for (const [content, pattern] of mistakes) {
    writeFileSync(config, JSON.stringify(content));
    const { code, stdout, stderr } = await cli(scratch, playArgs(scratch, config));
    assert.equal(code, 1);
    assert.equal(stdout, '');
    assert.match(stderr, pattern);
    assert.ok(stderr.includes(config), 'the file is named');
  }
  writeFileSync(config, '{"lowers": [');
  assert.match((await cli(scratch, playArgs(scratch, config))).stderr, /ERR_CONFIG_JSON/);
  assert.ok(!existsSync(scratch.path('traces')));
});
