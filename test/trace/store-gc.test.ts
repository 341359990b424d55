import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { encodeTrace } from '../../src/trace/encode.ts';
import type { CatalogEntry } from '../../src/trace/store-catalog.ts';
import { factsOfTrace } from '../../src/trace/store-facts.ts';
import { chooseGarbage, collectGarbage, lastOfUse } from '../../src/trace/store-gc.ts';
import { selectTraces, shortKey } from '../../src/trace/store-select.ts';
import { imageKey, TraceStore } from '../../src/trace/store.ts';
import { workloadOfWords } from '../../src/trace/workload.ts';
import { scratchOf } from '../support/scratch.ts';
import { bootLikeRecords, traceOf } from './synthetic.ts';

// Goal: a store keeps its bounds, what is pinned stays, and what is not known to be of no use stays too.
// Method: properties over stores of any kind, then a real folder with what crashes leave in it.

const layer = { digest: `sha256:${'a'.repeat(64)}`, sizeBytes: 2 ** 30, diffId: null };
const trace = traceOf(bootLikeRecords(5, 1, 1), [layer]);
const plainFacts = factsOfTrace(trace, { sizeBytes: 1, crc32c: '' });

const entry: fc.Arbitrary<CatalogEntry> = fc
  .record({
    image: fc.constantFrom('1', '2', '3'),
    workload: fc.constantFrom('a', 'b'),
    repository: fc.constantFrom('', 'r/x', 'r/y'),
    sizeBytes: fc.nat({ max: 1000 }),
    modifiedAtMs: fc.nat({ max: 1000 }),
    recordedAtMs: fc.nat({ max: 1000 }),
    lastUsedAtMs: fc.option(fc.nat({ max: 1000 })),
    isPinned: fc.boolean(),
    isSound: fc.boolean(),
  })
  .map(({ repository, recordedAtMs, lastUsedAtMs, isSound, ...stored }) => ({
    ...{ ...stored, path: '' },
    facts: isSound ? { ...plainFacts, repository, recordedAtMs, lastUsedAtMs } : null,
  }));
const bytesOf = (entries: readonly CatalogEntry[]) =>
  entries.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);

test('bounds are kept, pinned and latest traces stay, and the least used goes first', () => {
  const options = fc.record(
    {
      maxAgeMs: fc.nat({ max: 1500 }),
      maxBytes: fc.nat({ max: 5000 }),
      keepRuns: fc.nat({ max: 3 }),
    },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(fc.array(entry, { maxLength: 12 }), options, (entries, bounds) => {
      const gone = new Set(chooseGarbage(entries, bounds, 1500));
      const kept = entries.filter((one) => !gone.has(one));
      assert.ok([...gone].every(({ isPinned }) => !isPinned));
      const { maxAgeMs = Infinity, maxBytes = Infinity, keepRuns = 0 } = bounds;
      if (keepRuns === 0) {
        const free = kept.filter(({ isPinned }) => !isPinned);
        assert.ok(free.every((one) => 1500 - lastOfUse(one) <= maxAgeMs));
        // Only pinned ones, and those without bytes, may be left beyond the bound.
        assert.ok(bytesOf(kept) <= maxBytes || bytesOf(free) === 0);
        const newest = Math.max(0, ...[...gone].map(lastOfUse));
        assert.ok(free.every((one) => lastOfUse(one) >= newest || one.sizeBytes === 0));
      }
      for (const one of gone) {
        const named = (other: CatalogEntry) => {
          const name = (of: CatalogEntry) => of.facts?.repository || of.image;
          return name(other) === name(one) && other.workload === one.workload;
        };
        assert.ok(kept.filter(named).length >= keepRuns, 'the latest runs stay');
      }
      if (bounds.maxAgeMs === undefined && bounds.maxBytes === undefined) {
        assert.equal(gone.size, 0);
      }
    }),
    { numRuns: 500 },
  );
});

test('a real store: dry run, leftovers, damage, pins', async (t) => {
  const scratch = scratchOf(t);
  const store = new TraceStore(scratch.path('store'));
  const image = imageKey(trace.image);
  const keys: string[] = [];
  for (const word of ['a', 'b', 'c']) {
    const workload = workloadOfWords({ workload: [word] });
    keys.push(workload.key);
    const path = await store.put(image, workload.key, encodeTrace({ ...trace, workload }));
    utimesSync(path, 1, 1);
  }
  await store.pin(image, keys[0]);
  const old = (path: string, text = ''): string => {
    writeFileSync(path, text);
    utimesSync(path, 1, 1);
    return path;
  };
  const folder = `${store.folder}/${image}`;
  const orphan = old(`${folder}/${'f'.repeat(64)}.json`, '{}');
  const temporary = old(`${folder}/${keys[1]}.trace.1.abcd.tmp`);
  const fresh = `${folder}/${keys[1]}.trace.2.abcd.tmp`;
  writeFileSync(fresh, 'being written');
  const strange = old(`${folder}/notes.txt`, 'not ours');
  const damaged = old(store.path(image, 'e'.repeat(64)), 'no trace');
  mkdirSync(`${store.folder}/${'0'.repeat(64)}`);
  utimesSync(`${store.folder}/${'0'.repeat(64)}`, 1, 1);

  const before = readdirSync(store.folder, { recursive: true });
  const options = { maxAgeMs: 1000 };
  const now = Date.now();
  const said = await collectGarbage(store, { ...options, dryRun: true }, now);
  assert.deepEqual(readdirSync(store.folder, { recursive: true }), before);
  const done = await collectGarbage(store, options, now);
  assert.deepEqual(done, said);
  assert.deepEqual(
    done.removed.map(({ workload }) => workload).sort(),
    [keys[1], keys[2], 'e'.repeat(64)].sort(),
  );
  for (const path of [orphan, temporary, damaged]) assert.ok(!existsSync(path), path);
  for (const path of [fresh, strange, store.path(image, keys[0])])
    assert.ok(existsSync(path), path);
  assert.ok(!existsSync(`${store.folder}/${'0'.repeat(64)}`));
  assert.equal(done.keptTraces, 1);
  assert.equal((await collectGarbage(store, options, now)).removed.length, 0);
});

/** A store where something happens just after a certain look at whether a trace is pinned. */
class RacingStore extends TraceStore {
  #looks = 0;
  readonly #look: number;
  readonly #happens: (store: TraceStore) => Promise<void>;

  constructor(folder: string, look: number, happens: (store: TraceStore) => Promise<void>) {
    super(folder);
    this.#look = look;
    this.#happens = happens;
  }

  override async isPinned(image: string, workload: string): Promise<boolean> {
    const isPinned = await super.isPinned(image, workload);
    this.#looks += 1;
    if (this.#looks === this.#look) await this.#happens(this);
    return isPinned;
  }
}

test('a trace that is replaced or pinned while garbage is collected stays', async (t) => {
  const image = imageKey(trace.image);
  const workload = trace.workload.key;
  const [old, renewed] = [encodeTrace(trace), encodeTrace({ ...trace, runs: 2 })];
  // The first look is that of the list, the others come before and after the trace was put aside.
  for (const look of [1, 2, 3]) {
    const folder = scratchOf(t).path('store');
    const replace = async (store: TraceStore) => void (await store.put(image, workload, renewed));
    const store = new RacingStore(folder, look, replace);
    utimesSync(await store.put(image, workload, old), 1, 1);
    await collectGarbage(store, { maxAgeMs: 1000 }, Date.now());
    assert.deepEqual(await store.get(image, workload), renewed, `replaced at look ${look}`);
    assert.deepEqual(readdirSync(join(folder, image)), [`${workload}.trace`]);
  }
  for (const look of [1, 2]) {
    const folder = scratchOf(t).path('store');
    const store = new RacingStore(folder, look, (racing) => racing.pin(image, workload));
    utimesSync(await store.put(image, workload, old), 1, 1);
    const { removed } = await collectGarbage(store, { maxAgeMs: 1000 }, Date.now());
    assert.deepEqual(removed, []);
    assert.deepEqual(await store.get(image, workload), old, `pinned at look ${look}`);
    assert.ok(await store.isPinned(image, workload));
  }
  // Put aside: there is nothing to pin.
  const store = new RacingStore(scratchOf(t).path('store'), 3, async (racing) => {
    await assert.rejects(racing.pin(image, workload), { code: 'ERR_TRACE_NOT_FOUND' });
  });
  utimesSync(await store.put(image, workload, old), 1, 1);
  assert.equal((await collectGarbage(store, { maxAgeMs: 1000 }, Date.now())).removed.length, 1);
  assert.equal(await store.isPinned(image, workload), false);
});

test('traces are named by the first digits of their keys, and never by those of several', async (t) => {
  const store = new TraceStore(scratchOf(t).path('store'));
  const image = imageKey(trace.image);
  const [one, two] = [`12345${'0'.repeat(59)}`, `12346${'0'.repeat(59)}`];
  for (const workload of [one, two]) await store.put(image, workload, encodeTrace(trace));
  const [chosen] = await selectTraces(store, ['12345']);
  assert.equal(chosen.workload, one);
  for (const key of [shortKey(chosen), chosen.path, one, `${image}/12345`]) {
    assert.deepEqual(await selectTraces(store, [key, key]), [chosen], key);
  }
  await assert.rejects(selectTraces(store, ['1234']), { code: 'ERR_TRACE_KEY' });
  for (const key of ['', 'ffff', '..', '../../etc/passwd']) {
    await assert.rejects(selectTraces(store, [key]), { code: 'ERR_TRACE_NOT_FOUND' });
  }
});
