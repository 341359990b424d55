import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { registryLimits } from '../../src/base/limits.ts';
import type { EmbeddedRegistryOptions } from '../../src/registry/embedded/server.ts';
import { PASSWORD, REPOSITORY, seen, setUp, temporaryFolder, USER } from './harness.ts';

// Goal: tags are listed page by page within their bounds, and a registry that lists none has none.
// Method: the embedded registry with many tags, and answers that differ.

/** A registry with some tags, which name nothing. */
async function setUpTags(
  t: TestContext,
  tags: readonly string[] = [],
  options: Partial<EmbeddedRegistryOptions> = {},
) {
  const root = temporaryFolder(t);
  const folder = join(root, 'repositories', REPOSITORY, '_tags');
  mkdirSync(folder, { recursive: true });
  for (const tag of tags) writeFileSync(join(folder, tag), '');
  return await setUp(t, { root, ...options });
}

test('all pages are read, with credentials as for anything else', async (t) => {
  const auth = { kind: 'bearer' as const, username: USER, password: PASSWORD };
  const { tagsPerPage } = registryLimits;
  const tags = Array.from({ length: tagsPerPage + 2 }, (_, i) => `v${10_000 + i}`);
  const { registry, client, name } = await setUpTags(t, tags, { auth });
  assert.deepEqual(await client.listTags(name), tags);
  assert.equal(seen(registry).filter((one) => one === 'tags 200').length, 2);
});

test('what answers is bounded, and leads nowhere else', async (t) => {
  const { registry, client, name } = await setUpTags(t, ['a', 'b']);
  // A page that names itself as the next one.
  const loop = `<${registry.url}/v2/${REPOSITORY}/tags/list?n=1000>; rel="next"`;
  registry.setFaults(() => ({ kind: 'headers', headers: { link: loop } }));
  assert.equal((await client.listTags(name)).length, 2 * registryLimits.tagPagesMax);
  registry.clearLog();
  const elsewhere = '<http://127.0.0.1:1/v2/x/tags/list>; rel="next"';
  registry.setFaults(() => ({ kind: 'headers', headers: { link: elsewhere } }));
  assert.deepEqual(await client.listTags(name), ['a', 'b']);
  assert.deepEqual(seen(registry), ['tags 200']);
});

for (const status of [404, 405]) {
  test(`status ${status}: no tags`, async (t) => {
    const { registry, client, name } = await setUpTags(t);
    registry.setFaults(() => ({ kind: 'status', status }));
    assert.deepEqual(await client.listTags(name), []);
  });
}

test('other failures are told', async (t) => {
  const { registry, client, name } = await setUpTags(t);
  registry.setFaults(() => ({ kind: 'status', status: 403 }));
  await assert.rejects(client.listTags(name), { code: 'ERR_REGISTRY_AUTH' });
  registry.setFaults(() => ({ kind: 'body-length', delta: -1, framing: 'length' }));
  await assert.rejects(client.listTags(name), { code: 'ERR_REGISTRY_TAGS' });
});
