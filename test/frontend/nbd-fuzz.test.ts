import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { ByteQueue } from '../../src/frontend/nbd/byte-queue.ts';
import { Handshake, type HandshakeStep } from '../../src/frontend/nbd/handshake.ts';
import { Transmission } from '../../src/frontend/nbd/transmission.ts';
import { MemoryDevice, patternedBytes } from './nbd-fixture.ts';
import { infoData, metaContextData, requestBytes } from './nbd-raw-client.ts';

// Goal: whatever bytes arrive, and however they are cut, the parsers either answer or drop the
// connection, and answers do not depend on the cuts.
// Method: random bytes, mutated conversations and random cuts, run against the phases without a
// socket; the same conversation in one piece is the reference.

const SIZE_BYTES = 256 * 1024;
const device = new MemoryDevice(patternedBytes(SIZE_BYTES));

/** Feeds a conversation cut at the given places; returns what was sent and how it ended. */
function converse(input: Buffer, cuts: readonly number[]): { output: Buffer; end: string } {
  const queue = new ByteQueue();
  const output: Buffer[] = [];
  const send = (bytes: Buffer): number => output.push(Buffer.from(bytes));
  const handshake = new Handshake(new Map([['', device]]), send);
  let transmission: Transmission | null = null;
  let end = 'more';
  const bounds = [...new Set([0, ...cuts.map((cut) => cut % (input.length + 1)), input.length])];
  bounds.sort((a, b) => a - b);
  const step = (): boolean => {
    const result: HandshakeStep | string = transmission?.step(queue) ?? handshake.step(queue);
    if (typeof result !== 'string') {
      transmission = new Transmission(result, {
        send: (bytes, sent) => {
          send(bytes);
          sent();
        },
        onSent: () => undefined,
        signal: new AbortController().signal,
        log: silentLogger,
      });
      return true;
    }
    if (result !== 'again') end = result;
    return result === 'again';
  };
  try {
    for (const [index, bound] of bounds.slice(1).entries()) {
      queue.push(input.subarray(bounds[index], bound));
      let steps = 0;
      while (step()) assert.ok((steps += 1) < 10_000);
      if (end !== 'more') break;
    }
  } catch (error) {
    assert.ok(error instanceof ReplaybdError, String(error));
    assert.equal(error.code, 'ERR_NBD_PROTOCOL');
    end = error.message;
  }
  return { output: Buffer.concat(output), end };
}

function optionBytes(type: number, data: Buffer): Buffer {
  const header = Buffer.alloc(16);
  header.write('IHAVEOPT');
  header.writeUInt32BE(type, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

const handshakeBytes = Buffer.concat([
  Buffer.from([0, 0, 0, 3]),
  optionBytes(8, Buffer.alloc(0)),
  optionBytes(10, metaContextData('', ['base:allocation', 'x:y'])),
  optionBytes(7, infoData('', [0, 1, 2, 3])),
]);

const request = fc
  .record({
    type: fc.integer({ min: 0, max: 8 }).filter((type) => type !== 2 && type !== 5),
    sector: fc.integer({ min: 0, max: SIZE_BYTES / 512 + 4 }),
    sectors: fc.integer({ min: 0, max: 200 }),
    flags: fc.constantFrom(0, 0, 0, 1, 4, 8, 16),
    cookie: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  })
  .map(({ type, sector, sectors, flags, cookie }) => {
    const data = type === 1 ? Buffer.alloc(sectors * 512, 0x25) : Buffer.alloc(0);
    return requestBytes(type, sector * 512, sectors * 512, { flags, cookie, data });
  });

const cuts = fc.array(fc.nat(100_000), { maxLength: 40 });

test('how a conversation is cut changes nothing', () => {
  fc.assert(
    fc.property(fc.array(request, { maxLength: 6 }), cuts, (requests, places) => {
      const input = Buffer.concat([handshakeBytes, ...requests]);
      const whole = converse(input, []);
      assert.equal(whole.end, 'more');
      assert.ok(whole.output.length > 100);
      assert.deepEqual(converse(input, places), whole);
    }),
    { numRuns: 60 },
  );
});

test('a conversation byte by byte is the same conversation', () => {
  const input = Buffer.concat([
    handshakeBytes,
    requestBytes(0, 0, 65_536),
    requestBytes(7, 0, 65_536),
  ]);
  const everywhere = Array.from(input, (_, index) => index);
  assert.deepEqual(converse(input, everywhere), converse(input, []));
});

test('random bytes are answered or dropped', () => {
  const prefixes = [Buffer.alloc(0), Buffer.from([0, 0, 0, 3]), handshakeBytes];
  fc.assert(
    fc.property(
      fc.constantFrom(...prefixes),
      fc.uint8Array({ maxLength: 300 }),
      cuts,
      (prefix, tail, places) => {
        const input = Buffer.concat([prefix, tail]);
        assert.deepEqual(converse(input, places), converse(input, []));
      },
    ),
    { numRuns: 300 },
  );
});

test('a conversation with bytes changed is answered or dropped', () => {
  const change = fc.tuple(fc.nat(100_000), fc.nat(255));
  fc.assert(
    fc.property(
      fc.array(request, { maxLength: 4 }),
      fc.array(change, { minLength: 1, maxLength: 4 }),
      cuts,
      (requests, changes, places) => {
        const input = Buffer.concat([handshakeBytes, ...requests]);
        for (const [at, value] of changes) input[at % input.length] = value;
        converse(input, places);
      },
    ),
    { numRuns: 200 },
  );
});

test('the queue gives back the bytes it was given, however they are taken', () => {
  const action = fc.oneof(
    fc.record({ kind: fc.constant('push'), size: fc.nat(50) }),
    fc.record({ kind: fc.constantFrom('take', 'copy', 'skip'), size: fc.nat(80) }),
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 400 }), (actions) => {
      const queue = new ByteQueue();
      const model: number[] = [];
      let next = 0;
      for (const { kind, size } of actions) {
        if (kind === 'push') {
          const chunk = Buffer.from(Array.from({ length: size }, () => (next = (next + 1) % 251)));
          queue.push(chunk);
          model.push(...chunk);
        } else if (kind === 'take') {
          const expected = model.length >= size ? Buffer.from(model.splice(0, size)) : null;
          assert.deepEqual(queue.take(size), expected);
        } else if (kind === 'copy') {
          const target = Buffer.alloc(size);
          const count = queue.copyInto(target);
          assert.deepEqual(target.subarray(0, count), Buffer.from(model.splice(0, size)));
        } else {
          assert.equal(queue.skip(size), model.splice(0, size).length);
        }
        assert.equal(queue.length, model.length);
      }
    }),
    { numRuns: 100 },
  );
});
