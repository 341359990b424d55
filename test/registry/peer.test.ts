import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { PASSWORD, readRange, setUp, USER } from './harness.ts';

// Goal: with overlaybd's p2pConfig, ranges are asked of the accelerator by the blob's URL, and
// of the registry when the accelerator is away.
// Method: an accelerator that fetches what it is asked for and keeps a list.

for (const redirectBlobs of [true, false]) {
  test(`ranges go through the peer, ${redirectBlobs ? 'after' : 'without'} a redirect`, async (t) => {
    const asked: string[] = [];
    const peer = createServer((request, response) => {
      void (async () => {
        const url = (request.url ?? '').replace(/^\/dadip2p\//, '');
        asked.push(url);
        const { range = '', authorization } = request.headers;
        const headers = { range, ...(authorization === undefined ? {} : { authorization }) };
        const answer = await fetch(url, { headers });
        const contentRange = answer.headers.get('content-range') ?? '';
        response.writeHead(answer.status, { 'content-range': contentRange });
        response.end(Buffer.from(await answer.arrayBuffer()));
      })();
    });
    peer.listen(0, '127.0.0.1');
    await once(peer, 'listening');
    const stop = (): void => {
      peer.closeAllConnections();
      peer.close();
    };
    t.after(stop);
    const peerAddress = `http://127.0.0.1:${(peer.address() as AddressInfo).port}/dadip2p/`;
    const auth = { kind: 'bearer' as const, username: USER, password: PASSWORD };
    const { client, blob, digest, name } = await setUp(t, { auth, redirectBlobs }, { peerAddress });
    const source = client.blobSource(name, digest, blob.length);
    for (const offset of [0, 1000, 2000]) {
      const read = await readRange(source, offset, 1000);
      assert.deepEqual(read, blob.subarray(offset, offset + 1000));
    }
    assert.equal(asked.length, 2, 'all but the first range, which found the way');
    const path = redirectBlobs ? '/content/' : '/v2/apps/web/blobs/';
    assert.ok(asked.every((url) => url.includes(`${path}${digest}`)));
    stop();
    assert.deepEqual(await readRange(source, 5, 5), blob.subarray(5, 10));
    assert.equal(asked.length, 2);
  });
}
