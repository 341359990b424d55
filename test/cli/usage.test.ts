import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { Command, CommanderError } from 'commander';
import { byteSize, share } from '../../src/cli/arguments.ts';
import { programFor } from '../../src/cli/program.ts';
import { cli, cliJson } from '../support/cli.ts';
import { scratchOf } from '../support/scratch.ts';

// Goal: wrong words on a command line are refused before anything is done, with what was expected;
// right ones mean what they say.
// Method: the commands' own definitions in this process; the whole tool where it has to run.

/** What commander says about a command line that must be refused. */
async function refusal(...words: string[]): Promise<string> {
  const program = new Command().exitOverride().configureOutput({ writeErr: () => undefined });
  const module = (await import(`../../src/cli/${words[0]}.ts`)) as {
    register(program: Command): void;
  };
  module.register(program);
  const error = await program.parseAsync(words, { from: 'user' }).then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof CommanderError, `${words.join(' ')}: ${String(error)}`);
  return error.message;
}

const PLAY = ['play', 'image', '--reads', '/nonexistent'];
const ATTACH = ['attach', 'image'];
const BUILD = ['image', 'build', '--rootfs', '/nonexistent', '--layout', '/nonexistent'];
const SERVE = ['registry', 'serve', '--root', '/nonexistent'];

test('numbers out of range are wrong usage', async () => {
  const cases: [string[], RegExp][] = [
    [[...PLAY, '--concurrency', '0'], /--concurrency.*whole number from 1 to/],
    [[...PLAY, '--concurrency', '1.5'], /--concurrency.*whole number from 1 to/],
    [[...PLAY, '--quota', '-1'], /--quota.*number above 0/],
    [[...PLAY, '--budget', ''], /--budget.*number above 0/],
    [[...ATTACH, '--nbd-port', '65536'], /--nbd-port.*whole number from 0 to 65535/],
    [[...ATTACH, '--nbd-port', '-1'], /--nbd-port.*whole number from 0 to 65535/],
    [[...ATTACH, '--time-limit', 'Infinity'], /--time-limit.*number above 0/],
    [[...ATTACH, '--log-level', 'loud'], /--log-level.*debug, info, warn, error, fatal, silent/],
    [[...ATTACH, '--until-idle', '0'], /--until-idle.*number above 0/],
    [[...BUILD, '--virtual-size', '0'], /--virtual-size.*number above 0/],
    [[...BUILD, '--bs', '128'], /--bs.*whole number from 4 to 64/],
    [[...SERVE, '--rate', '0'], /--rate.*whole number of at least 1/],
    [[...SERVE, '--port', '70000'], /--port.*whole number from 0 to 65535/],
    [[...SERVE, '--latency', '-5'], /--latency.*whole number of at least 0/],
    [['demo', '--rate', '0'], /--rate.*number above 0/],
  ];
  for (const [words, expected] of cases) assert.match(await refusal(...words), expected);
});

test('flags of the other front end are wrong usage', async () => {
  const fuse = [...ATTACH, '--frontend', 'fuse'];
  const nbd = [...ATTACH, '--frontend', 'nbd'];
  const cases: [string[], RegExp][] = [
    [[...fuse, '--nbd-port', '0'], /--nbd-port is for --frontend nbd/],
    [[...fuse, '--nbd-socket', '/s'], /--nbd-socket is for --frontend nbd/],
    [[...nbd, '--no-loop'], /--no-loop is for --frontend fuse/],
    [[...nbd, '--mount', '/mnt'], /--mount is for --frontend fuse/],
    [[...nbd, '--nbd-port', '0', '--nbd-socket', '/s'], /--nbd-socket.* cannot be used with/],
  ];
  for (const [words, expected] of cases) assert.match(await refusal(...words), expected);
});

test('a client certificate has a key', async () => {
  const commands = [PLAY, ATTACH, BUILD, ['trace', 'pull', 'image'], ['image', 'config', 'image']];
  for (const command of commands) {
    const alone = await refusal(...command, '--client-cert', '/cert.pem');
    assert.match(alone, /--client-cert and --client-key belong together/);
  }
});

test("the daemon's help tells its own level of the log", async () => {
  const help = (await programFor('daemon')).commands[0].helpInformation();
  assert.match(
    help.replaceAll(/\s+/g, ' '),
    /--log-level <level> .*"error", "fatal", "silent", default: overlaybd\.json's, or info\)/,
  );
});

test('wrong usage is exit code 2', async (t) => {
  const scratch = scratchOf(t);
  for (const words of [
    [...SERVE, '--rate', '0'],
    [...ATTACH, '--nbd-port', '0'],
  ]) {
    const { code, stdout, stderr } = await cli(scratch, words);
    assert.equal(code, 2, stderr);
    assert.equal(stdout, '');
  }
});

test('a disk of a fraction of a GiB has whole blocks', async (t) => {
  const scratch = scratchOf(t);
  mkdirSync(scratch.path('rootfs'));
  writeFileSync(scratch.path('rootfs/file'), 'content');
  const built = await cliJson<{ virtualSizeBytes: number }>(scratch, [
    ...['image', 'build', '--rootfs', scratch.path('rootfs'), '--layout', scratch.path('layout')],
    ...['--virtual-size', '0.3'],
  ]);
  assert.equal(built.virtualSizeBytes, Math.ceil((0.3 * 2 ** 30) / 4096) * 4096);
});

test('a trace that is not there is named, with what to do', async (t) => {
  const scratch = scratchOf(t);
  for (const command of ['show', 'verify']) {
    const { code, stderr } = await cli(scratch, ['trace', command, scratch.path('none')]);
    assert.equal(code, 1);
    assert.match(stderr, /none: expected a trace file.*trace ls.*\(ERR_TRACE_NOT_FOUND\)/);
  }
  const { stderr } = await cli(scratch, ['trace', 'show', scratch.folder]);
  assert.match(stderr, /EISDIR.*\(ERR_TRACE_READ\)/);
});

test('keys of overlaybd.json without an effect are named in the log', async (t) => {
  const scratch = scratchOf(t);
  const config = scratch.path('overlaybd.json');
  writeFileSync(config, JSON.stringify({ ioEngine: 1, cacheConfig: { refillSize: 262_144 } }));
  writeFileSync(scratch.path('reads'), '0 4096\n');
  const { code, stderr } = await cli(scratch, [
    ...['play', scratch.path('none.json'), '--reads', scratch.path('reads'), '--cache', 'none'],
    ...['--config', config, '--log-level', 'info'],
  ]);
  assert.equal(code, 1);
  assert.match(stderr, /ERR_CONFIG_READ/, 'the image is not there');
  const line = stderr.split('\n').find((one) => one.includes('without an effect')) ?? '{}';
  const facts = JSON.parse(line) as Record<string, unknown>;
  assert.equal(facts.config, config);
  assert.deepEqual(facts.keys, [
    {
      key: 'cacheConfig.refillSize',
      reason: 'what is fetched follows from what is read and from the trace',
    },
    { key: 'ioEngine', reason: 'local files are mapped into memory' },
  ]);
});

test('limits of a trace need what they are about', async () => {
  const check = ['trace', 'check', '/nonexistent'];
  const picture = ['trace', 'export', '/nonexistent', '-o', '/nonexistent'];
  const against = [...check, '--against', '/nonexistent'];
  const cases: [string[], RegExp][] = [
    [[...check, '--max-waste', '20MB'], /--max-waste needs fresh runs/],
    [[...check, '--min-coverage', '0.9'], /--min-coverage needs fresh runs or an image/],
    [[...against, '--max-waste', '20 apples'], /--max-waste.*bytes such as/],
    [[...against, '--min-coverage', '95'], /--min-coverage.*from 0 to 1/],
    [['trace', 'merge', '-o', '/nonexistent'], /missing required argument 'traces'/],
    [['trace', 'merge', '/a', '-o', '/b', '--min-weight', '0'], /--min-weight.*from 1 to 65535/],
    [['trace', 'diff', '/a', '/b', '--top', '1001'], /--top.*from 0 to 1000/],
    [['trace', 'files', '/a', '/b', '--policy', 'lba'], /--policy is of a simulated start/],
    [[...picture, '--csv', '--policy', 'lba'], /--policy is of a simulated start/],
    [[...picture, '--overlaybd', '--policy', 'lba'], /told by --svg, --png and --csv alone/],
    [[...picture, '--csv', '--axis', 'layers'], /--axis is for --svg and --png/],
    [[...picture, '--axis', 'layers'], /--axis is for --svg and --png/],
    [['trace', 'pack', '/a', '/b', '-o', '/c', '--blob', '-'], /hot blob needs a file/],
  ];
  for (const [words, expected] of cases) assert.match(await refusal(...words), expected);
});

test('sizes have units, decimal or binary', () => {
  const sizes: [string, number][] = [
    ['20MB', 20_000_000],
    ['20MiB', 20 * 2 ** 20],
    ['20M', 20 * 2 ** 20],
    ['20m', 20 * 2 ** 20],
    ['1.5 GB', 1_500_000_000],
    ['512', 512],
    ['512B', 512],
    ['0', 0],
    ['1k', 1024],
  ];
  for (const [text, bytes] of sizes) assert.equal(byteSize(text), bytes, text);
  for (const text of ['', 'MB', '-1', '1.5.2MB', '20 apples', '1e3', '99999999999T', '1iB']) {
    assert.throws(() => byteSize(text), { code: 'commander.invalidArgument' }, text);
  }
  assert.deepEqual(['0', '0.95', '1'].map(share), [0, 0.95, 1]);
  for (const text of ['', '1.1', '-0.1', 'x']) assert.throws(() => share(text), text);
});
