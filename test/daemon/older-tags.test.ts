import assert from 'node:assert/strict';
import { test } from 'node:test';
import { orderOlderTags } from '../../src/daemon/older-tags.ts';

// Goal: of a repository's tags the version before an image comes first. Method: lists of tags.

test('the version before is first, by its numbers; later ones come last', () => {
  const tags = ['v10', 'v1', 'v11', 'v12', 'v2', 'v9'];
  assert.deepEqual(orderOlderTags(tags, 'v11'), ['v10', 'v9', 'v2', 'v1', 'v12']);
  assert.deepEqual(orderOlderTags(tags, 'v1'), ['v12', 'v11', 'v10', 'v9', 'v2']);
});

test('without a tag of its own, the last one is first', () => {
  const tags = ['2026-01-02', '2026-11-30', '2026-02-28'];
  assert.deepEqual(orderOlderTags(tags, null), ['2026-11-30', '2026-02-28', '2026-01-02']);
});

test('neither its own tag nor those of referrers and signatures are looked at', () => {
  const hex = 'a'.repeat(64);
  const tags = ['v1', 'v2', `sha256-${hex}`, `sha256-${hex}.sig`, 'sha256-is-a-name'];
  assert.deepEqual(orderOlderTags(tags, 'v2'), ['v1', 'sha256-is-a-name']);
});
