import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { encodeTraceWithinLimit } from '../../src/trace/encode.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { NbdReader } from '../../src/demo/nbd-client.ts';
import { cli, CliProcess, cliOutput, serveRegistry } from '../support/cli.ts';
import { needs } from '../support/needs.ts';
import { scratchOf, type Scratch } from '../support/scratch.ts';
import { Terminal } from '../support/terminal.ts';
import { writeWholeDiskList } from '../support/play.ts';
import { makeTestImage } from '../support/test-image.ts';
import { bootTrace } from '../tui/support.ts';

// Goal: the terminal interface works in a real terminal, of any size, and leaves it as it was; it shows a
// running daemon's devices, also when that comes and goes; without a terminal it prints a report.
// Method: tmux as the terminal: keys in, screen out; a daemon whose device is read through NBD.

const SMALL = [80, 24] as const;
const LARGE = [200, 60] as const;
const TABS = /1 Overview +2 Timeline +3 Layers +4 Files +5 Live +6 Diff +7 Simulate/;

function traceFile(scratch: Scratch, name = 'boot.trace'): string {
  const workload = describeWorkload(['/bin/\u001b]0;owned\u0007sh'], ['\u001b[2J', '\r\n']);
  const path = scratch.path(name);
  writeFileSync(path, encodeTraceWithinLimit({ ...bootTrace(3000, 4), workload }));
  return path;
}

test(
  'keys lead through the views, a resize redraws them, and the terminal comes back',
  { skip: needs('tmux') },
  async (t) => {
    const scratch = scratchOf(t);
    const terminal = await Terminal.start(scratch, ['tui', traceFile(scratch)], SMALL);
    await terminal.until(/3,000 first reads/);
    assert.equal(await terminal.property('alternate_on'), '1');
    assert.ok((await terminal.rows()).join('\n').includes('/bin/?]0;owned?sh ?[2J ??'));
    await terminal.until(/replayed +[\d.]+ m?s/);
    await terminal.keys('2');
    const small = await terminal.until(/record 1, layer/);
    assert.match(small[0], TABS);
    assert.match(small[23], /\? help +q quit/);
    assert.match((await terminal.rows(true)).join(''), /\u001b\[38;5;\d+m/);
    await terminal.keys('G', 'Enter');
    await terminal.until(/4\.0 x closer[^]*record 3,000, layer/);
    await terminal.resize(...LARGE);
    // The last row is where the last of the terminal's rows is, and nothing of the old screen is left.
    const large = await untilLastRow(terminal, 59);
    assert.equal(large.filter((row) => TABS.test(row)).length, 1);
    assert.equal(large.filter((row) => row.includes('? help')).length, 1);
    await terminal.resize(...SMALL);
    const again = await untilLastRow(terminal, 23);
    assert.equal(again.filter((row) => TABS.test(row)).length, 1);
    assert.match(again[0], TABS);
    await terminal.keys('3', '/');
    await terminal.type('nothing');
    await terminal.until(/No layer has "nothing"/);
    await terminal.keys('Escape');
    await terminal.until(/LAYER +DIGEST/);
    await terminal.keys('q');
    await terminal.until(/ready>/);
    assert.equal(await terminal.property('alternate_on'), '0');
    assert.equal(await terminal.property('cursor_flag'), '1');
  },
);

test(
  'the terminal comes back when the process is ended from outside, or by Ctrl-C',
  { skip: needs('tmux', 'pgrep') },
  async (t) => {
    const scratch = scratchOf(t);
    const file = traceFile(scratch);
    const terminal = await Terminal.start(scratch, ['tui', file], SMALL);
    const restored = async (): Promise<void> => {
      await terminal.until(/ready>\s*$/);
      assert.equal(await terminal.property('alternate_on'), '0');
      assert.equal(await terminal.property('cursor_flag'), '1');
    };
    await terminal.until(/replayed +[\d.]+ m?s/);
    for (const pid of await terminal.programs()) process.kill(pid, 'SIGTERM');
    await restored();
    await terminal.run(['tui', file]);
    await terminal.until(/replayed +[\d.]+ m?s/);
    await terminal.keys('C-c');
    await restored();
  },
);

test(
  'without colours, kinds are symbols; as plain text, words',
  { skip: needs('tmux') },
  async (t) => {
    const scratch = scratchOf(t);
    const args = ['tui', traceFile(scratch), '--view', '2'];
    const terminal = await Terminal.start(scratch, args, SMALL, { NO_COLOR: '1' });
    await terminal.until(/record 1, layer/);
    await terminal.keys('c');
    await terminal.until(
      /replay on 100 Mbit\/s, 20 ms[^]*░ prefetched [\d,]+[^]*waits [\d.]+ m?s in all/,
    );
    await terminal.keys('7', 'Left', 'Left', 'Left', '2');
    await terminal.until(/replay on 10 Mbit\/s, 20 ms[^]*▒ late [\d,]+[^]*waits [\d.]+ m?s in all/);
    await terminal.keys('c');
    await terminal.until(/· cached/);
    assert.doesNotMatch((await terminal.rows(true)).join(''), /\u001b\[[\d;]*(?:38|48);/);
    await terminal.keys('q');
    await terminal.until(/ready>/);
    const reader = scratchOf(t);
    const plain = [...args.slice(0, 2), '--plain'];
    const spoken = await Terminal.start(reader, plain, LARGE);
    await spoken.until(/Overview[^]*records +3,000 first reads/);
    await spoken.keys('2');
    await spoken.until(/Timeline[^]*0 µs to [\d.]+ m?s: \d+ records/);
    assert.equal(await spoken.property('alternate_on'), '0');
    await spoken.keys('q');
    await spoken.until(/ready>\s*$/);
  },
);

test('where there is no terminal, a report is printed', async (t) => {
  const scratch = scratchOf(t);
  const paths = [traceFile(scratch, 'a.trace'), traceFile(scratch, 'b.trace')];
  const text = await cliOutput(scratch, ['tui', ...paths]);
  assert.doesNotMatch(text, /\u001b|\r|\u0007/);
  for (const heading of ['Overview', 'Timeline', 'Layers', 'Diff', 'Simulate']) {
    assert.match(text, new RegExp(`^${heading}$`, 'm'));
  }
  assert.match(text, /^ similarity +100\.0 %: /m);
  assert.match(text, /^ A simulated replay on 100 Mbit\/s, 20 ms: [\d,]+ prefetched/m);
  assert.match(text, /^ replay \/ bound +\d/m);
  const one = await cliOutput(scratch, ['tui', paths[0], '--view', '3']);
  assert.match(one, /^Layers\n +LAYER/);
  const none = await cliOutput(scratch, ['tui']);
  // Root finds the devices of all processes, those of other tests too.
  assert.match(none, /^Live\n+ +(No device is attached|DEVICE +STATE)/);
  const silent = await cli(scratch, ['tui', '--socket', scratch.path('none')]);
  assert.deepEqual([silent.code, silent.stdout], [1, '']);
  assert.match(silent.stderr, /none: .*no daemon listens there.*ERR_CONTROL_UNREACHABLE/);
  const failed = await cli(scratch, ['tui', scratch.path('none.trace')]);
  assert.deepEqual([failed.code, failed.stdout], [1, '']);
  assert.match(failed.stderr, /ERR_TRACE_NOT_FOUND/);
  const imageless = await cli(scratch, ['tui', paths[0], '--image', scratch.path('none.json')]);
  assert.deepEqual([imageless.code, imageless.stdout], [1, '']);
  assert.match(imageless.stderr, /none\.json: .*ERR_/);
  assert.equal((await cli(scratch, ['tui', '--view', '8'])).code, 2);
  assert.equal((await cli(scratch, ['tui', '--image', 'x'])).code, 2);
});

test(
  'a device is watched while it is read, across a restart of its daemon',
  { skip: needs('tmux') },
  async (t) => {
    const scratch = scratchOf(t);
    const image = await makeTestImage(
      scratch,
      await serveRegistry(scratch, scratch.path('registry')),
    );
    const socket = scratch.path('control');
    const daemon = async (): Promise<CliProcess> => {
      const folders = ['--cache', scratch.path('cache'), '--trace-dir', scratch.path('traces')];
      const started = new CliProcess(scratch, ['daemon', '--json', '--socket', socket, ...folders]);
      await started.line();
      return started;
    };
    const terminal = await Terminal.start(scratch, ['tui', '--socket', socket], SMALL);
    await terminal.until(/no daemon listens there[^]*Trying again/);
    const first = await daemon();
    await terminal.until(/No device is attached/);
    const nbd = scratch.path('disk.nbd');
    await cliOutput(scratch, [
      ...['attach', '--daemon', '--socket', socket, image.reference, '--id', 'disk'],
      ...['--mode', 'record', '--frontend', 'nbd', '--nbd-socket', nbd],
    ]);
    await terminal.until(/ disk +ready +record /);
    await terminal.keys('Enter');
    await terminal.until(/0 first touches/);
    const reader = await NbdReader.connect(nbd);
    await reader.read(0, 2 ** 18);
    await reader.read(2 ** 22, 2 ** 16);
    reader.close();
    await terminal.until(/ [1-9]\d* first touches[^]*■ (?:cached|demand)/);
    await terminal.keys('Escape');
    await terminal.until(/hit rate[^]*miss p99/);
    first.kill('SIGTERM');
    await first.ended;
    await terminal.until(/no daemon listens there/);
    await daemon();
    await terminal.until(/ disk +ready /);
    await terminal.keys('q');
    await terminal.until(/ready>\s*$/);
  },
);

test('with its image, the records of a trace are files', { skip: needs('tmux') }, async (t) => {
  const scratch = scratchOf(t);
  const image = await makeTestImage(
    scratch,
    await serveRegistry(scratch, scratch.path('registry')),
  );
  const [reads, trace] = [scratch.path('reads'), scratch.path('all.trace')];
  writeWholeDiskList(reads, image.virtualSizeBytes);
  const record = ['--mode', 'record', '--trace', trace, '--cache', 'none'];
  await cliOutput(scratch, ['play', image.config, '--reads', reads, ...record]);
  const args = ['tui', trace, '--image', image.config, '--cache', 'none'];
  const text = await cliOutput(scratch, [...args, '--view', '4']);
  assert.match(text, /^Files\n \d[\d,]* of \d[\d,]* files and structures +\(ext4\)/);
  assert.match(text, / \/modules\/pino\/package\.json$/m);
  const terminal = await Terminal.start(scratch, [...args, '--view', '4'], LARGE);
  await terminal.until(/files and structures[^]*\? help/);
  await terminal.keys('/');
  await terminal.type('pino/package.json');
  await terminal.until(/ 1 of /);
  await terminal.keys('Enter', 'Enter');
  await terminal.until(
    /only "\/modules\/pino\/package\.json"[^]*record \d+, .*pino\/package\.json/,
  );
  await terminal.keys('q');
  await terminal.until(/ready>\s*$/);
});

test('two traces of an image are compared by file', { skip: needs('tmux') }, async (t) => {
  const scratch = scratchOf(t);
  const image = await makeTestImage(
    scratch,
    await serveRegistry(scratch, scratch.path('registry')),
  );
  const reads = scratch.path('reads');
  writeWholeDiskList(reads, image.virtualSizeBytes);
  const all = readFileSync(reads, 'utf8').trimEnd().split('\n');
  const traces: string[] = [];
  for (const [name, lines] of [
    ['all', all],
    ['some', all.slice(0, 30)],
  ] as const) {
    writeFileSync(reads, `${lines.join('\n')}\n`);
    const trace = scratch.path(`${name}.trace`);
    const record = ['--mode', 'record', '--trace', trace, '--cache', 'none'];
    await cliOutput(scratch, ['play', image.config, '--reads', reads, ...record]);
    traces.push(trace);
  }
  const args = ['tui', ...traces, '--image', image.config, '--cache', 'none', '--view', '6'];
  const text = await cliOutput(scratch, args);
  const [, count] = /^ (\d[\d,]*) files, by changed$/m.exec(text) ?? [];
  assert.ok(Number(count?.replaceAll(',', '')) > 100, text.slice(0, 1000));
  const lost = / +- +- +([\d.]+ [KM]?i?B) +- +(\/\S+)$/m.exec(text);
  assert.ok(lost !== null, text.slice(0, 3000));
  const terminal = await Terminal.start(scratch, args, SMALL);
  await terminal.until(/ files, by changed[^]*KEPT +MOVED +LOST +NEW +FILE/);
  await terminal.keys('s', '/');
  await terminal.type(lost[2]);
  await terminal.until(/ 1 file, by lost/);
  await terminal.keys('Enter', 'Enter');
  await terminal.until(new RegExp(`${lost[1]} lost[^]*IN FILE +SIZE +WHAT[^]* 0 B .* lost .* - `));
  await terminal.keys('Enter');
  await terminal.until(/as a replay of all\.trace, only "\/[^]*: unused, only all\.trace has/);
  await terminal.keys('6', 'Escape');
  await terminal.until(/ 1 file, by lost/);
  await terminal.keys('q');
  await terminal.until(/ready>\s*$/);
  assert.equal(
    (await cli(scratch, [...args.slice(0, 2), ...args.slice(3), '--image', 'x'])).code,
    2,
  );
});

async function untilLastRow(terminal: Terminal, last: number): Promise<string[]> {
  const pattern = new RegExp(`^(?:[^\\n]*\\n){${last}}[^\\n]*\\? help +q quit`);
  return await terminal.until(pattern);
}
