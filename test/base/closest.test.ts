import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { closestWord } from '../../src/base/closest.ts';

// Goal: a mistyped word finds the one that was meant, and an unrelated one finds nothing.
// Method: typical slips, and properties over arbitrary text.

const WORDS = ['quotaGB', 'cacheDir', 'readDeadlineMs', 'traceDir', 'mode'];

test('slips are recognised', () => {
  const slips: [string, string | null][] = [
    ['quotaGb', 'quotaGB'],
    ['quota', 'quotaGB'],
    ['cachedir', 'cacheDir'],
    ['readDeadline', 'readDeadlineMs'],
    ['tracesDir', 'traceDir'],
    ['mod', 'mode'],
    ['compression', null],
    ['', null],
  ];
  for (const [slip, meant] of slips) assert.equal(closestWord(slip, WORDS), meant, slip);
});

test('a word is closest to itself; what is found is one of the words', () => {
  fc.assert(
    fc.property(fc.string({ maxLength: 100 }), (text) => {
      const found = closestWord(text, WORDS);
      assert.ok(found === null || WORDS.includes(found));
      if (text.length > 0 && text.length <= 64) assert.equal(closestWord(text, [text]), text);
    }),
  );
});
