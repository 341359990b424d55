// Goal: a local file is a blob that is always present.
// Method: map files of several sizes, read them, close them.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { openLocalBlob } from '../../src/blob/local-blob.ts';
import { patternBytes, sameBytes, temporaryFolder } from './support.ts';

test('a file of any size is mapped whole and is never fetched', async (t) => {
  const folder = await temporaryFolder(t);
  for (const sizeBytes of [0, 1, 4096, 10_000]) {
    const content = patternBytes(sizeBytes);
    const path = `${folder}/${sizeBytes}`;
    await writeFile(path, content);
    const blob = await openLocalBlob(path);
    assert.equal(blob.sizeBytes, sizeBytes);
    assert.equal(blob.map.presence, null);
    assert(sameBytes(blob.bytes, content));
    assert.equal(blob.has(0, sizeBytes), true);
    await blob.ensure(0, sizeBytes);
    assert.equal(blob.drop(0, sizeBytes), false);
    assert.equal(blob.touch(0, sizeBytes).cached, sizeBytes);
    assert.equal(blob.touch(0, sizeBytes).cached, 0);
    await blob.close();
    assert.equal(blob.bytes.length, 0);
    await blob.close();
  }
});

test('what is not a file is refused', async (t) => {
  const folder = await temporaryFolder(t);
  await assert.rejects(openLocalBlob(`${folder}/none`), { code: 'ERR_BLOB_OPEN' });
  await assert.rejects(openLocalBlob(folder), { code: 'ERR_BLOB_OPEN' });
});
