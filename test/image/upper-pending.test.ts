// Goal: what a killed process had acknowledged and not written down is found again, and only then: not
// after the machine was started anew, not for another layer, not where another program went on.
// Method: files of a layer are copied while it is open, as a kill would leave them; then they are
// damaged, exchanged or written to. What was acknowledged is known from the writes themselves.
import assert from 'node:assert/strict';
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import { upperLimits } from '../../src/base/limits.ts';
import { upperFiles, type UpperPaths } from '../../src/image/lsmt/create-upper.ts';
import { continuationOf, pendingPath, readPending } from '../../src/image/lsmt/pending-file.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { openWritableUpper, type WritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { kinds, newUpper, pathsIn, pretendReboot, testFolder } from './upper-support.ts';

const MIB = 2 ** 20;
const ENTRY_BYTES = 16;

/** A copy of a layer's files as they are now. */
async function killedCopy(paths: UpperPaths, folder: string): Promise<UpperPaths> {
  await mkdir(folder);
  const copy = pathsIn(folder);
  const to = upperFiles(copy);
  for (const [i, path] of upperFiles(paths).entries()) {
    if (existsSync(path)) copyFileSync(path, to[i]);
  }
  return copy;
}

/** LBA, sectors, zeroed of each piece. */
async function piecesOf({ data, index }: UpperPaths): Promise<number[][]> {
  const { count, start, sectors, zeroed } = await openUpper(data, index);
  return Array.from({ length: count }, (_, row) => [start[row], sectors[row], zeroed[row]]);
}

/** What opening a layer for writing tells. */
async function repair(paths: UpperPaths): Promise<string> {
  let told = '';
  const log = pino({}, { write: (line: string) => void (told += line) });
  await (await openWritableUpper(paths, { log })).close();
  return told;
}

/** Two batches that were written down, and a change that was not. */
async function threeBatches(upper: WritableUpper): Promise<void> {
  await upper.write(0, Buffer.alloc(4096, 1));
  await upper.discard(65_536, 4096);
  await upper.flush();
  await upper.write(8192, Buffer.alloc(4096, 2));
  await upper.flush();
  await upper.write(65_536, Buffer.alloc(512, 3));
  await upper.discard(0, 512);
}
const FLUSHED = [
  [0, 8, 0],
  [16, 8, 0],
  [128, 8, 1],
];
const ACKNOWLEDGED = [
  [0, 1, 1],
  [1, 7, 0],
  [16, 8, 0],
  [128, 1, 0],
  [129, 7, 1],
];

for (const kind of kinds) {
  test(`${kind}: what was pending is found, written down once, and gone`, async (t) => {
    const folder = testFolder(t);
    const paths = pathsIn(folder);
    const upper = await newUpper(paths, kind, MIB);
    await threeBatches(upper);
    const modeOf = (path: string): number => statSync(path).mode;
    assert.equal(modeOf(pendingPath(paths.data)), modeOf(paths.data), 'who reads one reads both');
    const copy = await killedCopy(paths, join(folder, 'copy'));
    await upper.close();
    assert.deepEqual(await piecesOf(paths), ACKNOWLEDGED);
    assert.ok(!existsSync(pendingPath(paths.data)));

    assert.deepEqual(await piecesOf(copy), ACKNOWLEDGED, 'reading changes nothing');
    assert.match(await repair(copy), /"changes":2,.*wrote down what was pending/);
    assert.deepEqual(await piecesOf(copy), ACKNOWLEDGED);
    assert.ok(!existsSync(pendingPath(copy.data)));
    assert.equal(await repair(copy), '');
    const { log } = await openUpper(copy.data, copy.index);
    assert.equal(log.entries, 5);
  });

  test(`${kind}: what was pending is lost with the machine, and belongs to one layer`, async (t) => {
    const folder = testFolder(t);
    const paths = pathsIn(folder);
    const upper = await newUpper(paths, kind, MIB);
    await threeBatches(upper);
    const copy = await killedCopy(paths, join(folder, 'copy'));
    const other = pathsIn(folder, 'other');
    await (await newUpper(other, kind, MIB)).close();
    copyFileSync(pendingPath(paths.data), pendingPath(other.data));
    await upper.close();
    pretendReboot(join(folder, 'copy'));
    // A sparse layer's data is in its place, whether it was flushed or not.
    const lost = kind === 'append' ? FLUSHED : [...FLUSHED.slice(0, 2), [128, 1, 0], [129, 7, 1]];
    assert.deepEqual(await piecesOf(copy), lost);
    assert.equal(await repair(copy), '');
    assert.deepEqual(await piecesOf(copy), lost);
    assert.deepEqual(await piecesOf(other), []);
    assert.equal(await repair(other), '');
  });
}

for (const kind of kinds) {
  test(`${kind}: a long log is rewritten only when nothing is pending any more`, async (t) => {
    const folder = testFolder(t);
    const paths = pathsIn(folder);
    const upper = await newUpper(paths, kind, MIB);
    for (let i = 0; i <= upperLimits.logEntriesKept / 2; i += 1) {
      await upper.write((i % 16) * 1024, Buffer.alloc(512, 1));
      await upper.discard((i % 16) * 1024, 512);
    }
    await upper.write(0, Buffer.alloc(512, 2));
    await upper.flush();
    await upper.discard(0, 512);
    const copy = await killedCopy(paths, join(folder, 'copy'));
    await upper.close();
    const known = await piecesOf(paths);
    assert.ok(known.every(([, , zeroed]) => zeroed === 1));
    assert.match(await repair(copy), /wrote down what was pending/);
    const { log } = await openUpper(copy.data, copy.index);
    assert.ok(log.entries > upperLimits.logEntriesKept);
    assert.deepEqual(await piecesOf(copy), known);
    await repair(copy);
    assert.equal((await openUpper(copy.data, copy.index)).log.entries, known.length);
    assert.deepEqual(await piecesOf(copy), known);
  });
}

test('where another program went on, what was pending is dropped, and told', async (t) => {
  const folder = testFolder(t);
  const paths = pathsIn(folder);
  const upper = await newUpper(paths, 'append', MIB);
  await threeBatches(upper);
  const copy = await killedCopy(paths, join(folder, 'copy'));
  await upper.close();
  // The original appends an entry at each write: here, once more that of sector 0.
  appendFileSync(copy.index, readFileSync(copy.index).subarray(4096, 4096 + ENTRY_BYTES));
  assert.deepEqual(await piecesOf(copy), FLUSHED);
  assert.match(await repair(copy), /dropped pending changes: another program has written/);
  assert.deepEqual(await piecesOf(copy), FLUSHED);
  assert.equal(await repair(copy), '');
});

test('a log that was cut off amid a batch goes on where it ends', async (t) => {
  const folder = testFolder(t);
  const paths = pathsIn(folder);
  const upper = await newUpper(paths, 'append', MIB);
  await threeBatches(upper);
  const index = readFileSync(paths.index);
  // The last batch but one has one entry, behind two.
  for (const bytes of [2 * ENTRY_BYTES, 2 * ENTRY_BYTES + 5, 3 * ENTRY_BYTES]) {
    const copy = await killedCopy(paths, join(folder, `copy-${bytes}`));
    writeFileSync(copy.index, index.subarray(0, 4096 + bytes));
    assert.deepEqual(await piecesOf(copy), ACKNOWLEDGED);
    await repair(copy);
    assert.deepEqual(await piecesOf(copy), ACKNOWLEDGED);
  }
  await upper.close();
});

test('a file with any bytes changed or cut off gives what was written, or less', async (t) => {
  const folder = testFolder(t);
  const paths = pathsIn(folder);
  const upper = await newUpper(paths, 'append', MIB);
  await threeBatches(upper);
  const copy = await killedCopy(paths, join(folder, 'copy'));
  const { uuid } = upper;
  await upper.close();
  const path = pendingPath(copy.data);
  const good = readFileSync(path);
  const whole = await readPending(copy.data, uuid);
  assert.deepEqual(
    whole.map(({ words }) => words.length),
    [4, 8],
  );
  const halfBytes = good.length - 96 - 24;
  const position = fc.oneof(fc.nat(200), fc.integer({ min: halfBytes, max: good.length - 1 }));
  const change = fc.tuple(position, fc.integer({ min: 1, max: 255 }));
  const length = fc.oneof(fc.constant(good.length), fc.nat(200), fc.nat(good.length));
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 3 }), length, async (changes, end) => {
      const bytes = Buffer.from(good);
      for (const [at, by] of changes) bytes[at] ^= by;
      writeFileSync(path, bytes.subarray(0, end));
      for (const { generation, words } of await readPending(copy.data, uuid)) {
        const known = whole.find((batch) => batch.generation === generation)?.words;
        assert.deepEqual(words, known?.subarray(0, words.length));
      }
      await piecesOf(copy);
    }),
    { numRuns: 60 },
  );
});

test('batches go on where a log ends, wherever that is in them', () => {
  const batch = (generation: number, logEntries: number, words: number[]) => ({
    ...{ bootId: '', uuid: null, generation, logEntries },
    words: Uint32Array.from(words.flatMap((word) => [word, 0, 0, 0])),
  });
  const entries = fc.array(fc.nat(9), { maxLength: 5 });
  fc.assert(
    fc.property(entries, entries, entries, fc.nat(20), (before, first, second, taken) => {
      const batches = [
        batch(3, before.length, first),
        batch(4, before.length + first.length, second),
      ];
      const all = [...before, ...first, ...second];
      const inLog = Math.min(before.length + taken, all.length);
      const log = batch(0, 0, all.slice(0, inLog)).words;
      const changes = continuationOf(log, batches);
      assert.deepEqual(changes?.pending, batch(0, 0, all.slice(inLog)).words);
      if (first.length + second.length === 0) return;
      const foreign = batch(0, 0, [...all, 10]).words;
      assert.equal(continuationOf(foreign, batches), null);
      if (before.length > 0) assert.equal(continuationOf(log.subarray(0, 0), batches), null);
    }),
  );
});
