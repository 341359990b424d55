import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { attachBody } from '../../src/daemon/attach-parameters.ts';
import {
  parseAttachParameters,
  parseRecordParameters,
} from '../../src/daemon/control-parameters.ts';

// Goal: whatever a client sends is either taken whole, and can be sent again as it was understood, or
// refused with a code.
// Method: bodies of known keys with values of every kind, and plain text; then each rule by itself.

const value = fc.oneof(
  ...[fc.jsonValue(), fc.constantFrom('/a', 'a', 'nbd', 'fuse', 'none', 'off', 'sparse')],
  fc.array(fc.string(), { maxLength: 3 }),
);
const keys = [
  'mode',
  'frontend',
  'workload',
  'workloadArgs',
  'workloadEnv',
  'trace',
  'upper',
  'upperKind',
  'mount',
  'loop',
  'socket',
  'port',
];
const body = fc.record(
  {
    id: fc.constantFrom('a', 'a/b', ''),
    image: fc.constantFrom('r.example/a:b', '/c.json', 'c.json'),
    ...Object.fromEntries(keys.map((key) => [key, value])),
    other: fc.constant(1),
  },
  { requiredKeys: ['id', 'image'] },
);

function refuses(parse: (text: string) => unknown, text: string): boolean {
  try {
    parse(text);
    return false;
  } catch (error) {
    assert.ok(error instanceof ReplaybdError, String(error));
    assert.equal(error.code, 'ERR_CONTROL_BODY');
    return true;
  }
}

test('any body is refused with a code, or means what it says', () => {
  const property = fc.property(
    fc.oneof(
      body.map((one) => JSON.stringify(one)),
      fc.string(),
    ),
    (text) => {
      refuses(parseRecordParameters, text);
      if (refuses(parseAttachParameters, text)) return;
      const parameters = parseAttachParameters(text);
      assert.deepEqual(parseAttachParameters(JSON.stringify(attachBody(parameters))), parameters);
    },
  );
  fc.assert(property, { numRuns: 500 });
});

test('what would go unheeded, or mean another file, is refused', () => {
  const good = { id: 'a', image: 'r.example/a:b', frontend: 'nbd' };
  assert.ok(!refuses(parseAttachParameters, JSON.stringify({ ...good, socket: '/s' })));
  const wrong: object[] = [
    ...[
      { ...good, id: '../a' },
      { ...good, image: 'c.json' },
      { ...good, image: './c' },
    ],
    ...[
      { ...good, socket: 's' },
      { ...good, mount: '/m' },
      { ...good, port: 65_536 },
    ],
    ...[
      { ...good, socket: '/s', port: 1 },
      { ...good, upperKind: 'append' },
      { ...good, more: 1 },
    ],
    ...[{ ...good, mode: 'replya' }, { ...good, workload: [1] }, { id: 'a' }],
  ];
  for (const one of wrong) {
    assert.ok(refuses(parseAttachParameters, JSON.stringify(one)), JSON.stringify(one));
  }
});
