import assert from 'node:assert/strict';
import { test } from 'node:test';
import { printable } from '../../src/base/printable.ts';

// Goal: an untrusted name cannot move a terminal's cursor or pass for another name.
// Method: names with and without what does.

test('plain text of any language stays as it is', () => {
  for (const text of ['/usr/bin/app', 'with space', '文件.txt', 'é ✓', '']) {
    assert.equal(printable(text), text);
  }
});

test('what could deceive becomes a question mark', () => {
  assert.equal(printable('a\u001b[2Jb\nc\u0085d\u007f'), 'a?[2Jb?c?d?');
  assert.equal(printable('exe\u202egpj'), 'exe?gpj');
  assert.equal(printable('a\u200bb\u2066c\ufeff\u2028'), 'a?b?c??');
});
