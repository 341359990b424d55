import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { readListLimits } from '../../src/base/limits.ts';
import { loadReadList, parseReadList } from '../../src/daemon/read-list.ts';

// Goal: read lists mean what they say, and every mistake is named by file and line.
// Method: small lists in every layout, each kind of mistake, and lists generated and parsed back.

test('layout, comments and blank lines', () => {
  const text = '# a workload\r\n0 4096\n\n  512\t100  2500 # think\n7 1 0';
  assert.deepEqual(parseReadList(text, 'list'), [
    { offset: 0, length: 4096, thinkUs: 0 },
    { offset: 512, length: 100, thinkUs: 2500 },
    { offset: 7, length: 1, thinkUs: 0 },
  ]);
  assert.deepEqual(parseReadList('', 'list'), []);
});

test('what is wrong is named by file and line', () => {
  const mistakes: [string, RegExp][] = [
    ['0 1\n5', /^list:2: .*expected offset length \[think_us\], found '5'/],
    ['0 1 2 3', /^list:1: .*found '0 1 2 3'/],
    ['-1 5', /^list:1: .*expected offset .* found '-1'/],
    ['0x10 5', /found '0x10'/],
    ['1e3 5', /found '1e3'/],
    ['0 0', /expected length from 1/],
    ['0 1.5', /found '1.5'/],
    [`0 ${readListLimits.readBytesMax + 1}`, /expected length/],
    [`0 1 ${readListLimits.thinkUsMax + 1}`, /expected think_us/],
    ['9007199254740992 1', /expected offset/],
    ['9007199254740991 1', /expected a range below 2\^53/],
    [`0 1 #${'x'.repeat(readListLimits.lineLengthMax)}`, /characters a line/],
  ];
  for (const [text, expected] of mistakes) {
    assert.throws(
      () => parseReadList(text, 'list'),
      (error: unknown) => {
        assert.ok(error instanceof ReplaybdError);
        assert.equal(error.code, 'ERR_READ_LIST');
        assert.match(error.message, expected);
        return true;
      },
    );
  }
});

test('the number of lines is bounded', () => {
  assert.deepEqual(parseReadList('\n'.repeat(readListLimits.linesMax), 'list'), []);
  assert.throws(() => parseReadList('\n'.repeat(readListLimits.linesMax + 1), 'list'), {
    code: 'ERR_READ_LIST',
  });
});

test('a list that was written is read back', () => {
  const read = fc.record(
    {
      offset: fc.nat(2 ** 31 - 1).map((value) => value * 4_000_000),
      length: fc.integer({ min: 1, max: readListLimits.readBytesMax }),
      thinkUs: fc.nat(readListLimits.thinkUsMax),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(fc.array(read), (reads) => {
      const lines = reads.map(({ offset, length, thinkUs }) => `${offset} ${length} ${thinkUs}\n`);
      assert.deepEqual(parseReadList(lines.join(''), 'list'), reads);
    }),
  );
});

test('any text is parsed or refused with our own error', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom(...'0129 \t\n\r#x-.') }), (text) => {
      try {
        parseReadList(text, 'list');
      } catch (error) {
        assert.ok(error instanceof ReplaybdError);
      }
    }),
  );
});

test('files are loaded, and missing ones named', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-list-'));
  t.after(async () => await rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'reads');
  await writeFile(path, '0 512\n');
  assert.equal((await loadReadList(path)).length, 1);
  await assert.rejects(loadReadList(`${path}.none`), { code: 'ERR_READ_LIST', message: /ENOENT/ });
});
