// Goal: whatever a crash leaves of a writable layer opens again, holds what was flushed, and is
// repaired when it is opened for writing.
// Method: tear the ends off logs, data files and sidecars, flip bits in sidecars, and have a second
// opener; then let the original's rules (holes are not ours) meet files of ours and the other way round.
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import { codeOf } from '../../src/base/errors.ts';
import { upperLimits } from '../../src/base/limits.ts';
import { parseSidecar, sidecarHeader, sidecarPath } from '../../src/image/lsmt/sidecar.ts';
import type { UpperPaths } from '../../src/image/lsmt/create-upper.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { openWritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { kinds, newUpper, pathsIn, testFolder } from './upper-support.ts';

const MIB = 2 ** 20;

/** LBA, sectors, zeroed of each piece. */
async function piecesOf({ data, index }: UpperPaths): Promise<number[][]> {
  const { count, start, sectors, zeroed } = await openUpper(data, index);
  return Array.from({ length: count }, (_, row) => [start[row], sectors[row], zeroed[row]]);
}

/** A logger, and what it was told. */
function listeningLog() {
  const lines: string[] = [];
  const log = pino({}, { write: (line: string) => void lines.push(line) });
  return { log, lines };
}

async function appendPair(paths: UpperPaths): Promise<void> {
  const upper = await newUpper(paths, 'append', MIB);
  await upper.write(0, Buffer.alloc(4096, 1));
  await upper.write(8192, Buffer.alloc(4096, 2));
  await upper.discard(65_536, 4096);
  await upper.write(16_384, Buffer.alloc(4096, 3));
  await upper.close();
}

const TEARS = [
  {
    what: 'part of an entry',
    tear: (p: UpperPaths) => truncateSync(p.index, 4096 + 3 * 16 + 7),
    left: 3,
  },
  {
    what: 'the data of the last write',
    tear: (p: UpperPaths) => truncateSync(p.data, 4096 * 3),
    left: 3,
  },
  {
    what: 'half of that data',
    tear: (p: UpperPaths) => truncateSync(p.data, 4096 * 3 + 700),
    left: 3,
  },
  {
    what: 'the data of two writes',
    tear: (p: UpperPaths) => truncateSync(p.data, 4096 * 2),
    left: 1,
  },
  { what: 'all data', tear: (p: UpperPaths) => truncateSync(p.data, 4096), left: 0 },
];
const WHOLE = [
  [0, 8, 0],
  [16, 8, 0],
  [128, 8, 1],
];
for (const { what, tear, left } of TEARS) {
  test(`a crash that cost ${what} is repaired, and told`, async (t) => {
    const paths = pathsIn(testFolder(t));
    await appendPair(paths);
    tear(paths);
    assert.deepEqual(await piecesOf(paths), WHOLE.slice(0, left));
    assert.match((await openUpper(paths.data, paths.index)).log.torn ?? '', /entr/);

    const { log, lines } = listeningLog();
    const upper = await openWritableUpper(paths, { log });
    assert.equal(lines.length, 1);
    assert.match(lines[0], /dropped .* never flushed/);
    await upper.write(524_288, Buffer.alloc(512, 9));
    await upper.close();
    assert.equal(statSync(paths.data).size % 512, 0);
    assert.equal(statSync(paths.index).size, 4096 + (left + 1) * 16);
    assert.deepEqual(await piecesOf(paths), [...WHOLE.slice(0, left), [1024, 1, 0]]);
    const again = listeningLog();
    await (await openWritableUpper(paths, { log: again.log })).close();
    assert.deepEqual(again.lines, []);
  });
}

test('an entry that leads nowhere amid good ones is damage, not a crash', async (t) => {
  const paths = pathsIn(testFolder(t));
  await appendPair(paths);
  const index = readFileSync(paths.index);
  index.writeUInt32LE(5000, 4096 + 16 + 8);
  writeFileSync(paths.index, index);
  await assert.rejects(openWritableUpper(paths), { code: 'ERR_LSMT_MAPPED' });
});

for (const kind of kinds) {
  test(`${kind}: a second opener is told that the layer is in use`, async (t) => {
    const paths = pathsIn(testFolder(t));
    const upper = await newUpper(paths, kind, MIB);
    await assert.rejects(openWritableUpper(paths), { code: 'ERR_UPPER_BUSY', errno: 'EBUSY' });
    await upper.close();
    await (await openWritableUpper(paths)).close();
    await assert.rejects(newUpper(paths, kind, MIB), { code: 'ERR_UPPER_EXISTS' });
  });

  test(`${kind}: a disk grows and shrinks; what it lost are zeros`, async (t) => {
    const paths = pathsIn(testFolder(t));
    const upper = await newUpper(paths, kind, MIB);
    await upper.write(MIB - 4096, Buffer.alloc(4096, 7));
    await upper.write(0, Buffer.alloc(512, 7));
    await upper.resize(MIB / 2);
    await assert.rejects(upper.write(MIB / 2, Buffer.alloc(512)), { code: 'ERR_UPPER_RANGE' });
    await upper.resize(2 * MIB);
    await upper.write(2 * MIB - 512, Buffer.alloc(512, 7));
    await upper.close();
    const found = await openUpper(paths.data, paths.index);
    assert.equal(found.virtualSizeBytes, 2 * MIB);
    const data = (await piecesOf(paths)).filter(([, , zeroed]) => zeroed === 0);
    assert.deepEqual(data, [
      [0, 1, 0],
      [4095, 1, 0],
    ]);
  });
}

test('a growth that stopped between the two headers has not happened', async (t) => {
  const paths = pathsIn(testFolder(t));
  await appendPair(paths);
  const pieces = await piecesOf(paths);
  const header = readFileSync(paths.data);
  header.writeBigUInt64LE(BigInt(2 * MIB), 48);
  writeFileSync(paths.data, header);
  const upper = await openWritableUpper(paths);
  assert.equal(upper.virtualSizeBytes, MIB);
  await upper.resize(2 * MIB);
  await upper.close();
  const { virtualSizeBytes } = await openUpper(paths.data, paths.index);
  assert.equal(virtualSizeBytes, 2 * MIB);
  assert.deepEqual(await piecesOf(paths), pieces);
});

test('a layer that states no size takes that of what is below, and keeps it', async (t) => {
  const paths = pathsIn(testFolder(t));
  await (await newUpper(paths, 'append', MIB)).close();
  for (const path of [paths.data, paths.index]) {
    const bytes = readFileSync(path);
    bytes.writeBigUInt64LE(0n, 48);
    writeFileSync(path, bytes);
  }
  await assert.rejects(openWritableUpper(paths), { code: 'ERR_UPPER_SIZE' });
  const upper = await openWritableUpper(paths, { virtualSizeBytes: 4 * MIB });
  await upper.close();
  assert.equal((await openUpper(paths.data, paths.index)).virtualSizeBytes, 4 * MIB);
});

test('a log of which little counts is rewritten when it is opened', async (t) => {
  for (const kind of kinds) {
    const paths = pathsIn(testFolder(t));
    const upper = await newUpper(paths, kind, MIB);
    const sector = Buffer.alloc(512, 1);
    for (let i = 0; i <= upperLimits.logEntriesKept / 2; i += 1) {
      await upper.write((i % 16) * 1024, sector);
      await upper.discard((i % 16) * 1024, 512);
    }
    await upper.write(0, sector);
    await upper.close();
    const before = await openUpper(paths.data, paths.index);
    await (await openWritableUpper(paths)).close();
    const after = await openUpper(paths.data, paths.index);
    assert.ok(before.log.entries > upperLimits.logEntriesKept);
    assert.equal(after.log.entries, 16);
    for (const column of ['start', 'sectors', 'mapped', 'zeroed'] as const) {
      assert.deepEqual(after[column], before[column]);
    }
  }
});

/** Sectors 8 to 15 discarded, 16 written, 17 written with zeros, all of it flushed. */
async function sparseLayer(paths: UpperPaths): Promise<void> {
  const upper = await newUpper(paths, 'sparse', MIB);
  await upper.discard(4096, 4096);
  await upper.write(8192, Buffer.alloc(512, 1));
  await upper.write(8704, Buffer.alloc(512));
  await upper.close();
}
const SPARSE = [
  [8, 8, 1],
  [16, 1, 0],
  [17, 1, 0],
];

test('a sparse layer keeps what it hides, and takes no more than it was given', async (t) => {
  const paths = pathsIn(testFolder(t));
  await sparseLayer(paths);
  assert.deepEqual(await piecesOf(paths), SPARSE);
  // As the original sees it: whole blocks, and no discards.
  await rm(sidecarPath(paths.data));
  assert.deepEqual(await piecesOf(paths), [[16, 8, 0]]);
});

test('what the original writes to a sparse layer of ours is found', async (t) => {
  const paths = pathsIn(testFolder(t));
  await sparseLayer(paths);
  const data = await open(paths.data, 'r+');
  await data.write(Buffer.alloc(4096, 5), 0, 4096, 4096 + 4096);
  await data.write(Buffer.alloc(4096, 6), 0, 4096, 4096 + 65_536);
  await data.close();
  assert.deepEqual(await piecesOf(paths), [
    [8, 8, 0],
    [16, 1, 0],
    [17, 1, 0],
    [128, 8, 0],
  ]);
});

test('a sidecar of another layer means nothing; one that is none is refused', async (t) => {
  const paths = pathsIn(testFolder(t));
  await sparseLayer(paths);
  const path = sidecarPath(paths.data);
  writeFileSync(path, sidecarHeader('11111111-2222-4333-8444-555555555555'));
  assert.deepEqual(await piecesOf(paths), [[16, 8, 0]]);
  writeFileSync(path, 'something else, which is longer than the sixty-four bytes of a header');
  await assert.rejects(piecesOf(paths), { code: 'ERR_SIDECAR' });
});

test('a torn sidecar ends where its last whole frame does', async (t) => {
  const paths = pathsIn(testFolder(t));
  await sparseLayer(paths);
  const upper = await openWritableUpper(paths);
  await upper.discard(524_288, 512);
  await upper.flush();
  await upper.close();
  const path = sidecarPath(paths.data);
  truncateSync(path, statSync(path).size - 1);
  const { log, lines } = listeningLog();
  await (await openWritableUpper(paths, { log })).close();
  assert.match(lines.join(), /bytes of the sidecar/);
  assert.deepEqual(await piecesOf(paths), SPARSE);
  appendFileSync(path, 'rest of a frame');
  await (await openWritableUpper(paths)).close();
  assert.deepEqual(await piecesOf(paths), SPARSE);
});

test('sidecars with any bytes changed or cut off parse, or are refused', async (t) => {
  const paths = pathsIn(testFolder(t));
  await sparseLayer(paths);
  const good = readFileSync(sidecarPath(paths.data));
  const { uuid } = await openUpper(paths.data, paths.index);
  const whole = parseSidecar(good, uuid, 'good');
  assert.ok(whole !== null);
  const change = fc.tuple(fc.nat(good.length - 1), fc.integer({ min: 1, max: 255 }));
  fc.assert(
    fc.property(fc.array(change, { maxLength: 3 }), fc.nat(good.length), (changes, length) => {
      const bytes = Buffer.from(good);
      for (const [at, by] of changes) bytes[at] ^= by;
      try {
        const parsed = parseSidecar(bytes.subarray(0, length), uuid, 'changed');
        if (parsed === null) return;
        assert.equal(parsed.endBytes + parsed.tornBytes, length);
        // What is taken is the beginning of what was written, never anything else.
        assert.deepEqual(parsed.words, whole.words.subarray(0, parsed.words.length));
      } catch (error) {
        if (codeOf(error) !== 'ERR_SIDECAR') throw error;
      }
    }),
    { numRuns: 2000 },
  );
  // Random bytes behind a good header.
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (rest) => {
      const bytes = Buffer.concat([sidecarHeader(uuid), rest]);
      assert.equal(parseSidecar(bytes, uuid, 'random')?.words.length, 0);
    }),
    { numRuns: 500 },
  );
});
