import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { render } from 'ink-testing-library';
import { createElement } from 'react';
import { OutcomeLog, OUTCOMES, recordOutcomes } from '../../src/prefetch/simulate/outcomes.ts';
import { prepareSimulation, simulate } from '../../src/prefetch/simulate/simulate.ts';
import { encodeTraceWithinLimit } from '../../src/trace/encode.ts';
import { updateFacts } from '../../src/trace/store-catalog.ts';
import { imageKey, TraceStore } from '../../src/trace/store.ts';
import { openTrace } from '../../tui/control-source.ts';
import { scratchOf } from '../support/scratch.ts';
import type { FileUse } from '../../src/trace/file-report.ts';
import { describeWorkload } from '../../src/trace/trace.ts';
import { App } from '../../tui/app.ts';
import { LINK_DEFAULT, simulationOf } from '../../tui/model/link.ts';
import { VIEW_IDS } from '../../tui/model/state.ts';
import { cellWidth } from '../../tui/paint/text.ts';
import type { Store } from '../../tui/store.ts';
import { VIEWS } from '../../tui/views/views.ts';
import { bootTrace, LARGE, SMALL, storeOf, textOf } from './support.ts';

// Goal: every view shows what the data say at every size, keys do what the help says, and nothing that a
// trace or an image says of itself reaches the terminal as anything but text.
// Method: screens as text, of stores whose keys are pressed; the ink application over ink-testing-library.

const HOSTILE = '\u001b]0;owned\u0007\u001b[2J\r\n/\u202eevil';

function file(name: string, firstUs: number, bytes: number): FileUse {
  const facts = { kind: 'file' as const, sizeBytes: bytes * 2, lastUs: firstUs, share: 0.5 };
  return {
    name,
    paths: [name],
    ...facts,
    firstUs,
    bytes,
    waitUs: 0,
    simulated: null,
    layers: [{ layer: 0, bytes }],
  };
}

const files = {
  fileSystem: 'ext4',
  foreignBytes: 8192,
  files: [
    file('/bin/app', 5000, 4096),
    file('/lib/large.so', 9000, 2 ** 20),
    file(HOSTILE, 9500, 512),
  ],
  namesAt: (_: string, lba: number) => [lba < 1_000_000 ? '/lib/large.so' : '/bin/app'],
  filesOf: (_: string, lba: number, sectors: number) => [
    { path: lba < 1_000_000 ? '/lib/large.so' : HOSTILE, lba, sectors, fileOffset: lba * 512 },
  ],
};

/** A store over two traces whose every view has something to show. */
function fullStore(options: { isColourless?: boolean; isPlain?: boolean } = {}): Store {
  const first = bootTrace(2000, 4);
  const hostile = { ...bootTrace(1500, 4, 2), workload: describeWorkload([HOSTILE], [HOSTILE]) };
  const log = new OutcomeLog();
  const value = simulate(prepareSimulation(first), simulationOf(LINK_DEFAULT), log);
  const outcomes = recordOutcomes(first, log);
  const store = storeOf([first, hostile], {
    files,
    simulation: { state: 'done', value },
    outcomes: { state: 'done', value: outcomes },
    ...options,
  });
  const device = {
    device: 'app',
    state: 'ready',
    failure: null,
    image: HOSTILE,
    frontend: 'nbd',
  } as const;
  store.session.live.list([
    { ...device, path: null, mount: null, mode: 'replay', virtualSizeBytes: 2 ** 30, readyMs: 5 },
  ]);
  return store;
}

function screen(store: Store, size: typeof SMALL | typeof LARGE = SMALL): string[] {
  return textOf(store.rows(size));
}

test('every view fills exactly the screen, whatever its size and whatever names say', () => {
  const key = fc.constantFrom(
    ...[
      '1',
      '2',
      '3',
      '4',
      '5',
      '6',
      '7',
      'tab',
      'backtab',
      '?',
      't',
      'enter',
      'escape',
      'o',
      'c',
      's',
      'f',
    ],
    ...[
      'left',
      'right',
      'up',
      'down',
      'home',
      'end',
      'pageup',
      'pagedown',
      '+',
      '-',
      '<',
      '>',
      'n',
      'p',
    ],
    ...['0', 'b', 'B', 'r', 'R', 'H', 'L', 'x'],
  );
  const size = fc.record({
    columns: fc.integer({ min: 1, max: 220 }),
    rows: fc.integer({ min: 1, max: 70 }),
  });
  const store = fullStore();
  fc.assert(
    fc.property(fc.array(key, { maxLength: 12 }), size, (keys, one) => {
      for (const name of keys) store.press(name, one);
      const rows = store.rows(one);
      assert.equal(rows.length, one.rows);
      for (const row of rows) {
        // What is left when colours are taken away is printable, and no longer than the screen is wide.
        const [text] = textOf([row]);
        assert.doesNotMatch(text, /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
        assert.ok(cellWidth(text) <= one.columns, `${cellWidth(text)} of ${one.columns}: ${text}`);
      }
    }),
    { numRuns: 300 },
  );
});

test('the overview tells what a trace holds, and a cold start on the chosen link', () => {
  const store = fullStore();
  const rows = screen(store).join('\n');
  assert.match(rows, /records +2,000 first reads/);
  assert.match(rows, /4 layers, 2\.0 GiB compressed/);
  assert.match(rows, /on a link of 100 Mbit\/s, 20 ms/);
  assert.match(rows, /replayed +[\d.]+ m?s +bound [\d.]+ m?s/);
  store.press('B', SMALL);
  assert.match(screen(store).join('\n'), /on a link of 50 Mbit\/s, 20 ms/);
  store.press('t', SMALL);
  assert.match(screen(store).join('\n'), /b\.trace.*trace 2 of 2/);
});

test('the overview tells how the last replays of a trace of the store went', async (t) => {
  const scratch = scratchOf(t);
  const trace = bootTrace(10);
  const store = new TraceStore(scratch.folder);
  const [image, workload] = [imageKey(trace.image), trace.workload.key];
  const path = await store.put(image, workload, encodeTraceWithinLimit(trace));
  assert.deepEqual((await openTrace(path)).runs, []);
  const run = { atMs: 1.76e12, touchedBytes: 12, planned: 1, fetchedBytes: 10 };
  const rest = { timeliness: 0.5, overFetch: null };
  const runs = [0.2, 0.97].map((coverage) => ({ ...run, coverage, ...rest }));
  await updateFacts(store, image, workload, (facts) => ({ ...facts, runs }));
  const opened = await openTrace(path);
  assert.deepEqual(opened.runs, runs);
  const shown = storeOf([trace]);
  (shown.session as { traces: readonly unknown[] }).traces = [opened];
  assert.match(
    screen(shown).join('\n'),
    /Last replays[^]*covered 97\.0 %, in time 50\.0 %, over-fetch n\/a/,
  );
});

test('the timeline has a record under its cursor, and goes closer and back', () => {
  const store = fullStore();
  store.press('2', SMALL);
  const { records, image } = store.session.traces[0].trace;
  const whole = screen(store);
  assert.match(whole.join('\n'), new RegExp(`● LBA ${records.lba[0].toLocaleString('en-GB')} \\+`));
  assert.ok(whole.join('\n').includes(image.layers[records.layer[0]].digest.slice(7, 19)));
  assert.match(whole.join('\n'), /record 1, .* \/lib\/large\.so|record 1, .* \/bin\/app/);
  store.press('end', SMALL);
  assert.match(screen(store).join('\n'), /record 2,000, layer/);
  store.press('p', SMALL);
  assert.doesNotMatch(screen(store).join('\n'), /record 2,000, layer/);
  store.press('enter', SMALL);
  assert.match(screen(store)[1], /4\.0 x closer/);
  store.press('escape', SMALL);
  assert.doesNotMatch(screen(store)[1], /closer/);
  store.press('o', SMALL);
  assert.match(screen(store).join('\n'), / layer 3│/);
});

test('kinds are told apart without colours', () => {
  const store = fullStore({ isColourless: true });
  store.press('2', SMALL);
  for (const key of ['c', 'c', 'c', 't']) store.press(key, SMALL);
  const rows = store.rows(SMALL);
  assert.doesNotMatch(rows.join(''), /\u001b\[(?:38|48|3\d|4\d)/);
  const text = rows.join('\n');
  assert.match(text, /- unused [\d,]+ +/);
  assert.match(text, /█ demand [\d,]+/);
  assert.doesNotMatch(text, /[▀▄]/);
  assert.match(text, /│[^\n]*-[^\n]*/);
});

test('layers and files lead to their timeline; lists are sorted and filtered', () => {
  const store = fullStore();
  store.press('3', SMALL);
  store.press('down', SMALL);
  assert.match(screen(store).join('\n'), / Layer 2 of a\.trace +touched in/);
  store.press('enter', SMALL);
  assert.match(screen(store)[1], /only "layer 2"/);
  const inLayer = store.session.traces[0].trace.records.layer.filter((layer) => layer === 2).length;
  assert.match(screen(store)[1], new RegExp(` ${inLayer.toLocaleString('en-GB')} records`));
  store.press('escape', SMALL);
  assert.match(screen(store)[1], / 2,000 records/);
  store.press('4', SMALL);
  const names = (): string[] =>
    screen(store)
      .slice(3, 6)
      .map((row) => row.trim().split(/ {2,}/).at(-1) ?? '');
  assert.deepEqual(names().slice(0, 2), ['/bin/app', '/lib/large.so']);
  store.press('s', SMALL);
  assert.equal(names()[0], '/lib/large.so');
  assert.match(screen(store).join('\n'), / 8\.0 KiB more lie where this image has other layers/);
  store.filter('bin');
  assert.match(screen(store)[1], /1 of 3 files.* of a\.trace, /);
  store.press('enter', SMALL);
  assert.match(screen(store)[1], /only "\/bin\/app"/);
});

test('what only the other trace has is found by its layer', () => {
  const first = bootTrace(100, 2);
  const [base, top] = first.image.layers;
  const rebuilt = { ...top, digest: `sha256:${'ab'.repeat(32)}` };
  const second = { ...first, image: { ...first.image, layers: [base, rebuilt] } };
  const store = storeOf([first, second], { view: 'diff' });
  const ofTop = first.records.layer.filter((layer) => layer === 1).length;
  const name = top.digest.slice(7, 19);
  store.filter(name);
  assert.match(screen(store).join('\n'), new RegExp(`${name} layer 1 of the first`));
  store.press('enter', SMALL);
  const lost = new RegExp(` ${ofTop} records, as a replay of a\\.trace, only "${name}"`);
  assert.match(screen(store)[1], lost);
  assert.match(screen(store).join('\n'), new RegExp(`■ unused ${ofTop} `));
});

test('two traces are compared; without a second, or an image, it is said what to do', () => {
  const store = fullStore();
  store.press('6', LARGE);
  const rows = screen(store, LARGE).join('\n');
  assert.match(rows, /similarity +[\d.]+ %: .* of the bytes in common, order/);
  assert.match(rows, /2 files, by changed\n +KEPT +MOVED +LOST +NEW +FILE/);
  store.press('f', LARGE);
  assert.match(screen(store, LARGE).join('\n'), /By layer\n +KEPT[^]* all +\n[^]* layer 3 *$/m);
  store.press('down', LARGE);
  store.press('enter', LARGE);
  const { digest } = store.session.traces[0].trace.image.layers[0];
  const filtered = new RegExp(`as a replay of a\\.trace, only "${digest.slice(7, 19)}"`);
  assert.match(screen(store, LARGE)[1], filtered);
  const single = storeOf([bootTrace(10)]);
  single.press('6', SMALL);
  assert.match(screen(single).join('\n'), /Name two traces/);
  single.press('4', SMALL);
  assert.match(screen(single).join('\n'), /--image REF/);
});

test('two traces are compared by file, and a file by its parts', () => {
  const store = fullStore();
  store.press('6', SMALL);
  const { session } = store;
  const found = session.diffFiles();
  assert.equal(found.state, 'done');
  const files = found.state === 'done' ? found.value : [];
  const large = files.find(({ path }) => path === '/lib/large.so');
  assert.ok(large !== undefined && large.lostBytes > 0 && large.newBytes > 0);
  store.filter('large');
  assert.match(screen(store).join('\n'), /1 files?, by changed[^]*\/lib\/large\.so/);
  store.press('s', SMALL);
  assert.match(screen(store).join('\n'), /, by lost/);
  store.press('enter', SMALL);
  const parts = session.fileParts('/lib/large.so');
  const sum = (kinds: readonly string[]): number =>
    parts.reduce((all, { kind, sectors }) => all + (kinds.includes(kind) ? sectors * 512 : 0), 0);
  assert.equal(sum(['lost']), large.lostBytes);
  assert.equal(sum(['new']), large.newBytes);
  assert.equal(sum(['moved']), large.movedBytes);
  assert.equal(sum(['kept', 'moved']), large.keptBytes);
  const rows = screen(store);
  assert.match(rows[1], /^ \/lib\/large\.so/);
  assert.match(rows[4], /IN FILE +SIZE +WHAT +FIRST AT +SECOND AT +LBA +LAYER/);
  assert.match(rows[5], /(?:lost +[\d.]+ m?s +-|new +- +[\d.]+ m?s|kept|moved) /);
  store.press('down', SMALL);
  store.press('enter', SMALL);
  assert.match(screen(store)[1], /as a replay of a\.trace, only "\/lib\/large\.so"/);
  store.press('6', SMALL);
  store.press('escape', SMALL);
  assert.match(screen(store).join('\n'), /1 file, by lost/);
  store.press('escape', SMALL);
  assert.match(screen(store).join('\n'), /2 files, by lost/);
});

test('the timeline tells what each record meets with in a simulated replay', () => {
  for (const isColourless of [false, true]) {
    const store = fullStore({ isColourless });
    store.press('2', SMALL);
    store.press('c', SMALL);
    const found = store.session.outcomes(0, LINK_DEFAULT);
    assert.ok(found.state === 'done');
    const { codes, waitMs } = found.value;
    const text = screen(store).join('\n');
    assert.match(text, /2,000 records, replay on 100 Mbit\/s, 20 ms/);
    const late = codes.filter((code) => OUTCOMES[code] === 'late').length;
    assert.ok(late > 0);
    const [mark, other] = isColourless ? ['▒', '░'] : ['■', '■'];
    assert.ok(text.includes(`${mark} late ${late.toLocaleString('en-GB')} `), text);
    assert.match(text, new RegExp(`${other} prefetched \\d.*waits [\\d.]+ m?s in all`));
    const waiting = codes.findIndex((code) => code >= OUTCOMES.indexOf('late'));
    assert.ok(waitMs[waiting] > 0);
    if (waiting > 0) store.press('w', SMALL);
    assert.match(screen(store).join('\n'), new RegExp(`record ${waiting + 1},`));
    assert.match(
      screen(store).join('\n'),
      /● LBA [\d,]+ \+ .* at .*: (?:late|demand), waits [\d.]+ (?:ms|µs|s)/,
    );
    store.press('b', SMALL);
    assert.match(screen(store)[1], /replay on 200 Mbit\/s, 20 ms/);
    store.press('R', SMALL);
    assert.match(screen(store)[1], /replay on 200 Mbit\/s, 10 ms/);
    store.press('?', SMALL);
    assert.match(screen(store).join('\n'), / c +colours[^]* late: still under way/);
  }
  const store = fullStore({ isPlain: true });
  store.press('2', SMALL);
  store.press('c', SMALL);
  const text = store.rows(SMALL).join('\n');
  assert.match(text, /\d records: [\d.]+ [KM]iB (?:prefetched|late|demand)/);
  assert.match(text, / At the cursor: LBA/);
  assert.match(text, /A simulated replay on 100 Mbit\/s, 20 ms: .*[\d,]+ late/);
  assert.match(text, /longest for:\n +record \d+, LBA .*waits/);
  const bare = storeOf([bootTrace(10)]);
  bare.press('2', SMALL);
  bare.press('c', SMALL);
  assert.match(screen(bare).join('\n'), /Not simulated: not simulated here/);
});

test('the help has all keys of every view, whole, in 80 x 24', () => {
  const store = fullStore();
  const common = ['1 - 7', 'tab', 'hjkl g G', 'PgUp PgDn', '/', 'esc', '?', 'q'];
  for (const { title, keys, notes = [] } of VIEWS) {
    store.press(String(VIEWS.findIndex((view) => view.title === title) + 1), SMALL);
    store.press('?', SMALL);
    const rows = screen(store);
    assert.ok(!rows.join('').includes('…'), rows.join('\n'));
    const [left, right] = [rows.map((row) => row.slice(0, 42)), rows.map((row) => row.slice(42))];
    for (const [key, what] of keys) {
      assert.ok(
        left.some((row) => row.trimEnd() === `  ${key.padEnd(10)} ${what}`),
        `${title}: ${key}`,
      );
    }
    for (const key of common) {
      assert.ok(
        right.some((row) => row.startsWith(`  ${key.padEnd(10)} `)),
        `${title}: ${key}`,
      );
    }
    const words = rows.join(' ').replaceAll(/ +/g, ' ');
    for (const note of notes) assert.ok(words.includes(note), `${title}: ${note}`);
    assert.ok(words.includes('Any key goes back.'), title);
    store.press('x', SMALL);
  }
});

test('an image that serves none of a trace is told, not an empty filter', () => {
  const store = storeOf([bootTrace(10)], {
    view: 'files',
    files: { ...files, files: [], foreignBytes: 8192 },
  });
  const told = (): string => screen(store).join(' ').replaceAll(/ +/g, ' ');
  assert.match(told(), /it is of another image\. 8\.0 KiB lie in other layers there/);
  store.filter('nothing');
  assert.match(told(), /No file has "nothing" in its path/);
});

test('sliders stop at their ends, and results are shown at once', () => {
  const store = fullStore();
  store.press('7', SMALL);
  assert.match(screen(store).join('\n'), /▶ bandwidth .* 100 Mbit\/s[^]*replay \/ bound +1\.\d\d/);
  for (let i = 0; i < 20; i += 1) store.press('right', SMALL);
  assert.match(screen(store).join('\n'), /▶ bandwidth .* 10000 Mbit\/s/);
  store.press('down', SMALL);
  for (let i = 0; i < 20; i += 1) store.press('left', SMALL);
  assert.match(screen(store).join('\n'), /▶ round trip +● ?─.* 1 ms/);
});

test('a start that is simulated is named with all that was chosen for it', () => {
  const store = fullStore();
  store.press('7', SMALL);
  for (const key of ['down', 'down', 'right', 'down', 'right', 'right', 'down', 'right']) {
    store.press(key, SMALL);
  }
  store.press('1', SMALL);
  const chosen = /on a link of 100 Mbit\/s, 20 ms, lba, 2 requests, 64\.0 KiB each/;
  assert.match(screen(store).join('\n'), chosen);
  store.press('2', SMALL);
  store.press('c', SMALL);
  const replay = /lba replay on 100 Mbit\/s, 20 ms, 2 requests, 64\.0 KiB each/;
  assert.match(screen(store, LARGE).join('\n'), replay);
});

test('text for screen readers has no pictures in it', () => {
  const store = fullStore({ isPlain: true });
  for (const [index] of VIEW_IDS.entries()) {
    store.press(String(index + 1), SMALL);
    const rows = store.rows(SMALL);
    assert.doesNotMatch(rows.join('\n'), /\u001b|[▀▄█▁░─┴│●]/);
  }
  store.press('2', SMALL);
  assert.match(store.rows(SMALL).join('\n'), /0 µs to \d+ ms: \d+ records: .* layer \d/);
});

test('ink draws the rows, hands keys over, takes a filter, and ends on q', async () => {
  const store = fullStore();
  const app = render(createElement(App, { store }));
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 20; i += 1) await turn();
  };
  const type = async (...keys: string[]): Promise<string> => {
    for (const key of keys) {
      app.stdin.write(key);
      await settle();
    }
    return textOf([app.lastFrame() ?? ''])[0];
  };
  await settle();
  assert.match(await type(), /2,000 first reads/);
  assert.match(await type('4'), /\/lib\/large\.so/);
  assert.doesNotMatch(await type('/', ...'app'), /large\.so/);
  assert.match(await type('\r', '2'), /records by address/, 'letters are keys again');
  assert.match(await type('G\r'), /4\.0 x closer/, 'keys that come together');
  const filtered = await type('4', '/large', '.so', '\r');
  assert.match(filtered, /1 of 3 files/, 'a filter that comes with its slash');
  assert.match(await type('3'), /LAYER +DIGEST/);
  const behind = await type('4', '/', '2', '\r3', '4', '/', '\u007f', 'on\r3');
  assert.match(behind, /LAYER +DIGEST/, 'keys that come together with Enter');
  assert.match(await type('?'), /Any key goes back/);
  assert.match(await type('x', '\u001b[Z'), /records by address/);
  assert.doesNotMatch(await type('1', '/', 'b', '\r'), /filter:/, 'nothing to filter there');
  await type('q');
  app.unmount();
});
