import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ReplaybdError } from '../../src/base/errors.ts';
import { tcmuLimits } from '../../src/base/limits.ts';
import { folderName } from '../../src/frontend/tcmu/kernel/configfs.ts';
import { parseOverlaybdConfig, parseUioName } from '../../src/frontend/tcmu/kernel/device-name.ts';
import { decodeMessages, encodeMessage } from '../../src/frontend/tcmu/kernel/netlink-message.ts';

// Goal: what the kernel and configfs say is read as they mean it, whatever it is.
// Method: names as a kernel printed them; messages there and back; any bytes as a message.

test('a UIO name is taken apart', () => {
  assert.deepEqual(parseUioName('tcm-user/999999999/dev_5/overlaybd//var/lib/5/config.v1.json\n'), {
    hba: 999_999_999,
    device: 'dev_5',
    subtype: 'overlaybd',
    config: '/var/lib/5/config.v1.json',
  });
  for (const other of ['', 'uio_hv_generic', 'tcm-user/0/dev', 'tcm-user/x/dev/overlaybd/c']) {
    assert.equal(parseUioName(other), null, other);
  }
});

test('overlaybd’s dev_config may have an id', () => {
  assert.deepEqual(parseOverlaybdConfig('/a/c.json'), { configPath: '/a/c.json', id: null });
  assert.deepEqual(parseOverlaybdConfig('/a/c.json;5'), { configPath: '/a/c.json', id: '5' });
  assert.deepEqual(parseOverlaybdConfig('/a;b;c'), { configPath: '/a', id: 'b;c' });
});

test('ids of any length and kind have folders of their own', () => {
  assert.equal(folderName('dev_', 'a.b-c'), 'dev_a.b-c');
  const property = fc.property(
    fc.uniqueArray(fc.string({ maxLength: 500 }), { minLength: 2 }),
    (ids) => {
      const names = ids.map((id) => folderName('dev_', id));
      assert.equal(new Set(names).size, ids.length);
      for (const name of names) {
        assert.match(name, /^dev_[A-Za-z0-9_.-]*$/);
        assert.ok(name.length <= tcmuLimits.folderNameBytesMax + 17);
      }
    },
  );
  fc.assert(property, { numRuns: 200 });
});

test('messages are read as they were written', () => {
  const attribute = fc.tuple(
    fc.integer({ min: 1, max: 0x3fff }),
    fc.uint8Array({ maxLength: 300 }),
  );
  const property = fc.property(
    fc.integer({ min: 16, max: 0xffff }),
    fc.integer({ min: 0, max: 255 }),
    fc.uniqueArray(attribute, { selector: ([type]) => type, maxLength: 12 }),
    (type, command, attributes) => {
      const written = attributes.map(([name, value]) => [name, Buffer.from(value)] as const);
      const message = encodeMessage(type, command, 7, written);
      const read = decodeMessages(Buffer.concat([message, message]));
      assert.equal(read.length, 2);
      for (const one of read) {
        assert.deepEqual([one.type, one.command, one.sequence, one.error], [type, command, 7, 0]);
        assert.deepEqual([...one.attributes], written);
      }
    },
  );
  fc.assert(property, { numRuns: 300 });
});

test('any other bytes are refused, or read without a fault', () => {
  const property = fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    try {
      decodeMessages(Buffer.from(bytes));
    } catch (error) {
      assert.ok(error instanceof ReplaybdError && error.code === 'ERR_NETLINK_MESSAGE');
    }
  });
  fc.assert(property, { numRuns: 2000 });
});
