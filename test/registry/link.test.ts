import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Link, type Flow } from '../../src/registry/embedded/link.ts';
import { readRange, setUp } from './harness.ts';

// Goal: the embedded registry's link is shared fairly, and carries no more than it should. (That it
// carries no less either is measured in bench/, where time may be asserted.)
// Method: flows that only count; whole requests through a slow link, whose lower bound in time
// holds on any machine.

class CountingFlow implements Flow {
  written = 0;
  readonly #total: number;
  readonly #link: Link;
  readonly #onDone: () => void;

  constructor(total: number, link: Link, onDone: () => void) {
    this.#total = total;
    this.#link = link;
    this.#onDone = onDone;
  }

  writeSlice(bytes: number): { written: number; state: 'more' | 'blocked' } {
    const written = Math.min(bytes, this.#total - this.written);
    this.written += written;
    if (this.written < this.#total) return { written, state: 'more' };
    this.#link.end(this);
    this.#onDone();
    return { written, state: 'blocked' };
  }
}

test('flows take turns: when the first is done, the others have nearly as much', async () => {
  const link = new Link({ bytesPerSecond: 50_000_000 });
  const flows: CountingFlow[] = [];
  const first = Promise.withResolvers<number[]>();
  for (let count = 0; count < 5; count += 1) {
    const onDone = () => first.resolve(flows.map(({ written }) => written));
    flows.push(new CountingFlow(500_000, link, onDone));
  }
  for (const flow of flows) link.begin(flow);
  const written = await first.promise;
  assert.ok(Math.min(...written) >= 500_000 - 2 * 100_000, written.join(' '));
});

test('an ended flow gives its share back, and an unlimited link carries everything', async () => {
  const link = new Link({});
  const done = Promise.withResolvers<void>();
  const gone = new CountingFlow(1, link, () => assert.fail('was ended'));
  const flow = new CountingFlow(10_000_000, link, () => done.resolve());
  link.begin(flow);
  link.end(gone);
  link.resume(gone);
  await done.promise;
  assert.equal(flow.written, 10_000_000);
});

test('concurrent bodies together take at least the time the link needs', async (t) => {
  const link = { bytesPerSecond: 10_000_000, latencyMs: 2 };
  const { registry, client, blob, digest, name } = await setUp(t, { link }, {}, 1_000_000);
  const source = client.blobSource(name, digest, blob.length);
  const startMs = performance.now();
  const parts = await Promise.all(
    Array.from({ length: 10 }, (_, i) => readRange(source, i * 100_000, 100_000, 'prefetch')),
  );
  const tookMs = performance.now() - startMs;
  assert.deepEqual(Buffer.concat(parts), blob);
  // The last slice's own time has not passed when it is written: at most one slice is early.
  assert.ok(tookMs >= 100 - 10, `${tookMs} ms`);
  registry.setLink({});
  assert.deepEqual(await readRange(source, 0, blob.length), blob);
});
