import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { encodeTraceWithinLimit } from '../../src/trace/encode.ts';
import { cli, cliJson, cliOutput } from '../support/cli.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';
import { bootTrace } from '../tui/support.ts';

// Goal: files that are named with -o are like those of any tool, `-` is standard output, and what cannot
// be written or is not sound is said, as JSON too.
// Method: the commands in processes of their own, on a made-up trace, under a shell where it matters.

/** Runs a command under another umask. */
const LENIENT = { through: ['sh', '-c', 'umask 026; exec "$@"', 'sh'] };
/** Runs a command with its standard output in a file. */
const INTO_FILE = { through: ['sh', '-c', 'exec "$@" > out', 'sh'] };

function traceFile(scratch: Scratch): string {
  const path = scratch.path('a.trace');
  writeFileSync(path, encodeTraceWithinLimit(bootTrace(20)));
  return path;
}

test('files that are named follow the umask, and replace what was there', async (t) => {
  const scratch = scratchOf(t);
  const file = traceFile(scratch);
  for (const [name, words] of [
    ['merged', ['merge', file]],
    ['table', ['export', file, '--csv']],
    ['picture', ['export', file, '--svg']],
  ] as const) {
    const output = scratch.path(name);
    writeFileSync(output, 'old', { mode: 0o600 });
    await cliOutput(scratch, ['trace', ...words, '-o', output], LENIENT);
    assert.equal(statSync(output).mode & 0o777, 0o640, name);
    assert.notEqual(readFileSync(output, 'utf8'), 'old');
  }
});

test('a folder that is not there is not made, and a folder is no file', async (t) => {
  const scratch = scratchOf(t);
  const merge = ['trace', 'merge', traceFile(scratch), '-o'];
  const missing = await cli(scratch, [...merge, scratch.path('none/b.trace')]);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /expected the folder \S+none to write into.*\(ERR_OUTPUT_WRITE\)/);
  assert.ok(!existsSync(scratch.path('none')));
  mkdirSync(scratch.path('folder'));
  const folder = await cli(scratch, [...merge, scratch.path('folder')]);
  assert.equal(folder.code, 1);
  assert.match(folder.stderr, /found a folder\. Name a file in it\. \(ERR_OUTPUT_TARGET\)/);
});

test('- is standard output, and what is told of it goes elsewhere', async (t) => {
  const scratch = scratchOf(t);
  const file = traceFile(scratch);
  const merge = ['trace', 'merge', file, '--json', '-o'];
  const { stdout } = await cli(scratch, [...merge, scratch.path('file')]);
  assert.equal((JSON.parse(stdout) as { output: string }).output, scratch.path('file'));
  const { code, stderr } = await cli(scratch, [...merge, '-'], INTO_FILE);
  assert.equal(code, 0, stderr);
  assert.deepEqual(readFileSync(scratch.path('out')), readFileSync(scratch.path('file')));
  assert.equal((JSON.parse(stderr) as { output: string }).output, '-');
  const table = await cliOutput(scratch, ['trace', 'export', file, '--csv', '-o', '-']);
  assert.match(table, /^time_us,wait_us,.*\n\d+,/);
  assert.ok(!existsSync(scratch.path('-')));
});

test('a file that is not sound is told as JSON too', async (t) => {
  const scratch = scratchOf(t);
  const file = traceFile(scratch);
  const sound = await cliJson<object>(scratch, ['trace', 'verify', file]);
  assert.deepEqual(sound, { file, ok: true, records: 20, planRanges: 21 });
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] ^= 1;
  writeFileSync(file, bytes);
  const { code, stdout, stderr } = await cli(scratch, ['trace', 'verify', file, '--json']);
  const told = JSON.parse(stdout) as Record<string, unknown>;
  assert.deepEqual([code, stderr, told.file, told.ok], [1, '', file, false]);
  assert.equal(told.code, 'ERR_TRACE_CHECKSUM');
  assert.match(String(told.message), /a\.trace: /);
  const text = await cli(scratch, ['trace', 'verify', file]);
  assert.deepEqual([text.code, text.stdout], [1, '']);
  assert.match(text.stderr, /ERR_TRACE_CHECKSUM/);
});
