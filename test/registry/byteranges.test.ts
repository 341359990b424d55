import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  byterangesBoundary,
  ByterangesError,
  ByterangesReader,
} from '../../src/registry/byteranges.ts';
import type { ByteRange } from '../../src/base/range.ts';

// Goal: of a multipart/byteranges body only the ranges asked for come through, whole and in order,
// however the body is cut into chunks; anything else is an error and hands on no wrong byte.
// Method: bodies as Go's, nginx's and Apache's servers write them, cut at random; then one change.

const SIZE = 5000;
const CONTENT = Buffer.from(Array.from({ length: SIZE }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

type Style = 'go' | 'nginx' | 'no-last-line';

function bodyOf(ranges: readonly ByteRange[], style: Style, boundary = 'B'): Buffer {
  const pieces: Buffer[] = [];
  for (const [index, { offset, length }] of ranges.entries()) {
    const lead = index === 0 && style === 'go' ? '' : '\r\n';
    const contentRange = `Content-Range: bytes ${offset}-${offset + length - 1}/${SIZE}`;
    const head = `${lead}--${boundary}\r\nContent-Type: x/y\r\n${contentRange}\r\n\r\n`;
    pieces.push(Buffer.from(head), CONTENT.subarray(offset, offset + length));
  }
  const last = style === 'no-last-line' ? '' : '\r\n';
  return Buffer.concat([...pieces, Buffer.from(`\r\n--${boundary}--${last}`)]);
}

/** Reads a body in chunks that end at `cuts`; gives what came through, by range. */
function read(body: Buffer, ranges: readonly ByteRange[], cuts: readonly number[]): Buffer[] {
  const got = ranges.map(() => Buffer.alloc(0));
  const reader = new ByterangesReader('B', ranges, SIZE, (chunk, index) => {
    got[index] = Buffer.concat([got[index], chunk]);
    const { offset } = ranges[index];
    const right = CONTENT.subarray(offset, offset + got[index].length);
    assert.ok(got[index].equals(right), 'a prefix of the right bytes');
  });
  let at = 0;
  for (const cut of [...new Set(cuts)].sort((a, b) => a - b)) {
    if (cut <= at || cut >= body.length) continue;
    reader.push(body.subarray(at, cut));
    at = cut;
  }
  reader.push(body.subarray(at));
  reader.finish();
  return got;
}

const rangesArbitrary = fc.array(
  fc.record({ offset: fc.nat(SIZE - 101), length: fc.integer({ min: 1, max: 100 }) }),
  { minLength: 2, maxLength: 8 },
);
const cutsArbitrary = fc.array(fc.nat(2000), { maxLength: 40 });

test('every range comes through, however the body is cut', () => {
  const styles = fc.constantFrom<Style>('go', 'nginx', 'no-last-line');
  fc.assert(
    fc.property(rangesArbitrary, cutsArbitrary, styles, (ranges, cuts, style) => {
      const got = read(bodyOf(ranges, style), ranges, cuts);
      for (const [index, { length }] of ranges.entries()) assert.equal(got[index].length, length);
    }),
  );
});

test('a changed byte outside the ranges is an error, or changes nothing that matters', () => {
  fc.assert(
    fc.property(
      rangesArbitrary,
      fc.nat(3000),
      fc.nat(255),
      cutsArbitrary,
      (ranges, at, to, cuts) => {
        const body = bodyOf(ranges, 'go');
        const position = at % body.length;
        const changed = Buffer.from(body);
        // Content is random here and checked block by block elsewhere: only text is changed.
        if (isContent(body, ranges, position)) return;
        changed[position] = to;
        try {
          read(changed, ranges, cuts);
        } catch (error) {
          assert.ok(error instanceof ByterangesError, String(error));
        }
      },
    ),
  );
});

function isContent(body: Buffer, ranges: readonly ByteRange[], position: number): boolean {
  let at = 0;
  for (const { length } of ranges) {
    at = body.indexOf('\r\n\r\n', at) + 4;
    if (position >= at && position < at + length) return true;
    at += length;
  }
  return false;
}

test('parts that are not as asked are refused', () => {
  const ranges = [
    { offset: 0, length: 10 },
    { offset: 100, length: 10 },
  ];
  const good = bodyOf(ranges, 'go').toString('latin1');
  const bad: Record<string, string> = {
    'reordered parts': bodyOf([...ranges].reverse(), 'go').toString('latin1'),
    'one part fewer': bodyOf(ranges.slice(0, 1), 'go').toString('latin1'),
    'one part more': bodyOf([...ranges, { offset: 0, length: 1 }], 'go').toString('latin1'),
    'parts joined': bodyOf([{ offset: 0, length: 110 }], 'go').toString('latin1'),
    'another size': good.replaceAll(`/${SIZE}`, `/${SIZE + 1}`),
    'an unknown size': good.replaceAll(`/${SIZE}`, '/*'),
    'no Content-Range': good.replaceAll('Content-Range', 'X-Range'),
    'another boundary': good.replaceAll('--B', '--C'),
    'headers without end': `--B\r\n${'X-Long: y\r\n'.repeat(2000)}`,
    'a body cut short': good.slice(0, -20),
    'an empty body': '',
  };
  for (const [name, text] of Object.entries(bad)) {
    assert.throws(() => read(Buffer.from(text, 'latin1'), ranges, []), ByterangesError, name);
  }
});

test('the boundary is read from the Content-Type', () => {
  assert.equal(byterangesBoundary('multipart/byteranges; boundary=00012'), '00012');
  assert.equal(byterangesBoundary('Multipart/Byteranges;boundary="a b"'), 'a b');
  for (const text of ['', 'application/octet-stream', 'multipart/form-data; boundary=x']) {
    assert.equal(byterangesBoundary(text), null, text);
  }
  assert.equal(byterangesBoundary(`multipart/byteranges; boundary=${'x'.repeat(71)}`), null);
});
