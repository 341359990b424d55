import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from '../../src/registry/challenge.ts';
import { resolveRanges } from '../../src/registry/embedded/range-header.ts';
import { parseContentRange } from '../../src/registry/headers.ts';
import { parseBlobUrl, parseReference } from '../../src/registry/reference.ts';

// Goal: texts from outside are read exactly, or refused; nothing throws anything unnamed or hangs.
// Method: examples from the specifications, round trips of generated values, random text.

const DIGEST = `sha256:${'ab'.repeat(32)}`;

test('references are read as Docker reads them', () => {
  const hub = { scheme: null, host: 'registry-1.docker.io' };
  const cases: [string, object][] = [
    ['redis', { ...hub, repository: 'library/redis', tag: null, digest: null }],
    ['redis:7.2', { ...hub, repository: 'library/redis', tag: '7.2', digest: null }],
    ['docker.io/redis', { ...hub, repository: 'library/redis', tag: null, digest: null }],
    ['me/app:v1', { ...hub, repository: 'me/app', tag: 'v1', digest: null }],
    [
      'localhost/app',
      { scheme: null, host: 'localhost', repository: 'app', tag: null, digest: null },
    ],
    [
      `ghcr.io/a/b/c:x@${DIGEST}`,
      { scheme: null, host: 'ghcr.io', repository: 'a/b/c', tag: 'x', digest: DIGEST },
    ],
    [
      'http://127.0.0.1:5000/a:1',
      { scheme: 'http', host: '127.0.0.1:5000', repository: 'a', tag: '1', digest: null },
    ],
    [
      'https://[::1]:5000/a',
      { scheme: 'https', host: '[::1]:5000', repository: 'a', tag: null, digest: null },
    ],
  ];
  for (const [text, expected] of cases) assert.deepEqual(parseReference(text), expected, text);
});

test('what is no reference is ERR_REFERENCE, and a password in it is not repeated', () => {
  const bad = ['', 'UPPER', 'a//b', 'a/', '/a', 'a:', 'a:b:c', 'a@sha256:12', 'http://x', 'a b'];
  bad.push(
    'host:99999/a',
    'https://me:hunter2@host.io/a',
    'a..b',
    'a/../b',
    '-a',
    'x'.repeat(2000),
  );
  for (const text of bad) {
    assert.throws(
      () => parseReference(text),
      (error) => {
        const { code, message } = error as { code: string; message: string };
        assert.ok(!message.includes('hunter2'), message);
        return code === 'ERR_REFERENCE';
      },
      text,
    );
  }
});

test('references round-trip', () => {
  const component = fc.stringMatching(/^[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?$/);
  const tag = fc.option(fc.stringMatching(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}$/));
  const host = fc.stringMatching(/^[a-z]{1,8}\.[a-z]{2,3}(?::[1-9][0-9]{0,3})?$/);
  const path = fc.array(component, { minLength: 1, maxLength: 4 });
  fc.assert(
    fc.property(host, path, tag, fc.boolean(), (name, parts, label, isPinned) => {
      fc.pre(!name.startsWith('docker.io'));
      const digest = isPinned ? DIGEST : null;
      const repository = parts.join('/');
      const text = `${name}/${repository}${label === null ? '' : `:${label}`}`;
      const parsed = parseReference(digest === null ? text : `${text}@${digest}`);
      assert.deepEqual(parsed, { scheme: null, host: name, repository, tag: label, digest });
    }),
  );
});

test('overlaybd blob URLs are read, with and without digest and leading slash', () => {
  const expected = { scheme: 'https', host: 'reg.io:444', repository: 'a/b' };
  const url = 'https://reg.io:444/v2/a/b/blobs';
  assert.deepEqual(parseBlobUrl(url), { ...expected, digest: null });
  assert.deepEqual(parseBlobUrl(`${url}/`), { ...expected, digest: null });
  assert.deepEqual(parseBlobUrl(`/${url}/${DIGEST}`), { ...expected, digest: DIGEST });
  assert.equal(parseBlobUrl('https://user:pass@reg.io/v2/a/blobs'), null);
  assert.equal(parseBlobUrl('reg.io/v2/a/blobs'), null);
  assert.throws(() => parseBlobUrl(`${url}/sha256:1`), { code: 'ERR_DIGEST' });
});

test('challenges of real registries are read', () => {
  const cases: [string, [string, Record<string, string>][]][] = [
    [
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",' +
        'scope="repository:a/b:pull,push"',
      [
        [
          'bearer',
          {
            realm: 'https://auth.docker.io/token',
            service: 'registry.docker.io',
            scope: 'repository:a/b:pull,push',
          },
        ],
      ],
    ],
    ['Basic realm="a \\"b\\", c"', [['basic', { realm: 'a "b", c' }]]],
    [
      'Negotiate, Basic realm=x , Bearer realm = "y"',
      [
        ['negotiate', {}],
        ['basic', { realm: 'x' }],
        ['bearer', { realm: 'y' }],
      ],
    ],
    [
      'NTLM YWJj==, BEARER Realm="r"',
      [
        ['ntlm', {}],
        ['bearer', { realm: 'r' }],
      ],
    ],
    [',, Basic', [['basic', {}]]],
    ['Basic realm="unclosed', [['basic', {}]]],
    ['="x"', []],
    ['', []],
  ];
  for (const [text, expected] of cases) {
    const found = parseChallenges(text).map(({ scheme, parameters }) => {
      return [scheme, Object.fromEntries(parameters)];
    });
    assert.deepEqual(found, expected, text);
  }
});

test('challenges round-trip, and random text neither throws nor hangs', () => {
  const value = fc.string({ maxLength: 40 }).filter((text) => !/[^\x20-\x7e]/.test(text));
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,8}$/), { maxLength: 5 });
  fc.assert(
    fc.property(names, fc.array(value, { minLength: 5, maxLength: 5 }), (keys, values) => {
      const parameters = keys.map((key, i) => [key, values[i] ?? ''] as const);
      const quoted = parameters.map(([key, text]) => `${key}="${text.replace(/["\\]/g, '\\$&')}"`);
      const [parsed] = parseChallenges(`Bearer ${quoted.join(', ')}`);
      assert.deepEqual([...(parsed?.parameters ?? [])], parameters);
    }),
  );
  const characters = fc.constantFrom(...'Bearer realm="x",=\\ \t;basic');
  fc.assert(
    fc.property(fc.string({ unit: characters, maxLength: 500 }), (text) => {
      parseChallenges(text);
    }),
  );
  assert.deepEqual(parseChallenges(`Bearer ${'a="'.repeat(10_000)}`), []);
});

test('Content-Range round-trips, and nothing malformed passes', () => {
  fc.assert(
    fc.property(fc.nat(), fc.nat(), fc.option(fc.nat()), (start, extra, rest) => {
      const end = start + extra;
      const total = rest === null ? null : end + 1 + rest;
      const text = `bytes ${start}-${end}/${total ?? '*'}`;
      assert.deepEqual(parseContentRange(text), { kind: 'range', start, end, total });
    }),
  );
  assert.deepEqual(parseContentRange('bytes */7'), { kind: 'unsatisfied', total: 7 });
  const bad = [
    '',
    'bytes',
    'bytes 5-4/9',
    'bytes 0-9/9',
    'bytes */*',
    'bytes -1-2/9',
    'bytes 0-/9',
  ];
  bad.push('bytes 0-1/99999999999999999', 'bytes 0-1/9 x', 'items 0-1/9', 'bytes 0-1,2-3/9');
  for (const text of bad) assert.equal(parseContentRange(text), null, text);
  fc.assert(
    fc.property(fc.string({ maxLength: 60 }), (text) => {
      const parsed = parseContentRange(text);
      if (parsed?.kind === 'range') assert.ok(parsed.start <= parsed.end);
    }),
  );
});

test('the server resolves Range headers inside the content', () => {
  assert.deepEqual(resolveRanges('bytes=-3', 10), [{ start: 7, end: 10 }]);
  assert.deepEqual(resolveRanges('bytes=-30', 10), [{ start: 0, end: 10 }]);
  assert.deepEqual(resolveRanges('bytes=5-', 10), [{ start: 5, end: 10 }]);
  assert.deepEqual(resolveRanges('bytes=5-500', 10), [{ start: 5, end: 10 }]);
  const several = [
    { start: 3, end: 5 },
    { start: 0, end: 2 },
  ];
  assert.deepEqual(resolveRanges('bytes=3-4, 0-1,10-', 10), several);
  for (const text of ['bytes=10-', 'bytes=-0', 'bytes=10-,11-12']) {
    assert.equal(resolveRanges(text, 10), 'unsatisfiable', text);
  }
  assert.equal(resolveRanges('bytes=0-0', 0), 'unsatisfiable');
  const many = `bytes=${'0-0,'.repeat(1000)}1-1`;
  const ignored = ['bytes=', 'bytes=-', 'bytes=5-4', 'bytes=0-1,4-3', 'bytes=0-8,1-9', 'lines=0-1'];
  for (const text of [undefined, ...ignored, many]) {
    assert.equal(resolveRanges(text, 10), 'all', text);
  }
});
