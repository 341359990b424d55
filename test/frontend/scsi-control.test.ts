import assert from 'node:assert/strict';
import { test } from 'node:test';
import { naaOfSerial } from '../../src/frontend/tcmu/scsi/identity.ts';
import { ScsiTarget } from '../../src/frontend/tcmu/scsi/target.ts';
import { cdb, cdb10 } from '../support/cdb.ts';
import { BLOCKS, SIZE_BYTES, fails, good, identity, inquiry, run, setUp } from './scsi-fixture.ts';

// Goal: a target describes itself and its state as SPC-4 and SBC-3 say, and refuses what they do not.
// Method: commands against a target over a disk in memory; replies compared byte by byte with what
// the standards' tables have.

test('INQUIRY names the disk', async () => {
  const { target } = setUp();
  const data = await good(target, inquiry(null), { room: 255 });
  assert.equal(data.length, 96);
  assert.equal(data.subarray(0, 8).toString('hex'), '000006025b000002');
  assert.equal(data.subarray(8, 36).toString(), 'LIO-ORG TCMU device     0002');
  assert.equal((await good(target, cdb(0x12, 0, 0, 0, 36, 0), { room: 36 })).length, 36);
  await fails(target, '5/2400', cdb(0x12, 0, 0x80, 0, 36, 0), { room: 36 });
  await fails(target, '5/2400', inquiry(0xc0), { room: 255 });
});

test('vital product data: serial, ids, limits, characteristics, provisioning', async () => {
  const { target } = setUp();
  const page = async (code: number): Promise<Buffer> => {
    const data = await good(target, inquiry(code), { room: 255 });
    assert.equal(data[1], code);
    assert.equal(data.readUInt16BE(2), data.length - 4);
    return data.subarray(4);
  };
  assert.equal((await page(0x00)).toString('hex'), '008083b0b1b2');
  assert.equal((await page(0x80)).toString(), identity.serial);
  const ids = await page(0x83);
  assert.equal(ids.subarray(0, 20).toString('hex'), `01030010${naaOfSerial(identity.serial)}`);
  assert.equal(naaOfSerial(identity.serial), '60014056bf9dc639a3f4a258c5f01234');
  assert.equal(ids.subarray(24).toString(), `LIO-ORG ${identity.serial}`);
  const limits = await page(0xb0);
  assert.equal(limits.length, 60);
  assert.equal(limits.subarray(0, 12).toString('hex'), '01ff00080000200000000800');
  assert.equal(limits.readUInt32BE(16), 2 ** 20);
  assert.equal((await page(0xb1)).readUInt16BE(0), 1);
  assert.equal((await page(0xb2)).toString('hex'), '00e40200');
});

test('READ CAPACITY tells of 512-byte blocks, physical ones of 4 KiB, and zeros', async () => {
  const { target } = setUp();
  const short = await good(target, cdb10(0x25, 0, 0), { room: 8 });
  assert.equal(short.toString('hex'), '000001ff00000200');
  const long = await good(target, cdb(0x9e, 0x10, [0, 8], [32, 4], 0, 0), { room: 32 });
  assert.equal(
    long.subarray(0, 16).toString('hex'),
    '00000000000001ff0000020000'.padEnd(26, '0') + '03c000',
  );
  const readOnly = setUp(false).target;
  const other = await good(readOnly, cdb(0x9e, 0x10, [0, 8], [32, 4], 0, 0), { room: 32 });
  assert.equal(other[14], 0);
});

test('MODE SENSE and MODE SELECT take what is valid and point at what is not', async () => {
  const { target } = setUp();
  const all = await good(target, cdb(0x5a, 0, 0x3f, 0, 0, 0, 0, [255, 2], 0), { room: 255 });
  assert.equal(all.readUInt16BE(0), all.length - 2);
  assert.equal(all.subarray(8, 16).toString('hex'), '0000020000000200');
  assert.equal(all.length, 8 + 8 + 12 + 20 + 12);
  await fails(target, '5/3900', cdb(0x1a, 0, 0xc8, 0, 255, 0), { room: 255 });
  await fails(target, '5/2400', cdb(0x1a, 0, 0x1d, 0, 255, 0), { room: 255 });
  const select = async (list: number[], expected: string): Promise<void> => {
    const out = Uint8Array.from(list);
    await fails(target, expected, cdb(0x15, 0x10, 0, 0, out.length, 0), { out });
  };
  const control = (flags: number): number[] => [0x0a, 10, flags, 0x10, 0, 0, 0, 0, 255, 255, 0, 0];
  await select([0, 0, 0], '5/1a00');
  await select([0, 0, 0, 0, ...control(0).slice(0, 5)], '5/1a00');
  await select([0, 0, 0, 0, 0x0a, 9], '5/2600');
  await select([0, 0, 0, 0, ...control(0x02)], '5/2600');
  await select([0, 0, 0, 0, 0x1d, 0], '5/2600');
  await select([0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 4, 0], '5/2600');
  const out = Uint8Array.from([0, 0, 0, 0, ...control(0x04)]);
  await good(target, cdb(0x15, 0x10, 0, 0, out.length, 0), { out });
  const { senseBytes } = await run(target, cdb10(0x28, BLOCKS, 1), { room: 512 });
  assert.equal(Buffer.from(senseBytes).toString('hex'), '7205210000000000');
});

test('a disk that changes its size tells of it once', async () => {
  const { disk, target } = setUp();
  await good(target, cdb(0, 0, 0, 0, 0, 0));
  disk.sizeBytes = SIZE_BYTES / 2;
  await good(target, inquiry(null), { room: 36 });
  await fails(target, '6/2a09', cdb(0, 0, 0, 0, 0, 0));
  await good(target, cdb(0, 0, 0, 0, 0, 0));
  const capacity = await good(target, cdb10(0x25, 0, 0), { room: 8 });
  assert.equal(capacity.readUInt32BE(0), BLOCKS / 2 - 1);
  disk.sizeBytes = SIZE_BYTES;
  const sense = await good(target, cdb(0x03, 0, 0, 0, 252, 0), { room: 252 });
  assert.equal(sense.length, 18);
  assert.deepEqual([sense[2], sense[12], sense[13]], [6, 0x2a, 0x09]);
  const none = await good(target, cdb(0x03, 1, 0, 0, 252, 0), { room: 252 });
  assert.equal(none.toString('hex'), '7200000000000000');
});

test('a stopped disk serves nothing until it is started', async () => {
  const { disk, target } = setUp();
  await good(target, cdb(0x1b, 0, 0, 0, 0, 0));
  assert.deepEqual(disk.calls, ['flush']);
  await fails(target, '2/0402', cdb(0, 0, 0, 0, 0, 0));
  await fails(target, '2/0402', cdb10(0x28, 0, 1), { room: 512 });
  await good(target, inquiry(null), { room: 36 });
  await good(target, cdb(0x1b, 0, 0, 0, 1, 0));
  await good(target, cdb10(0x28, 0, 1), { room: 512 });
  await fails(target, '5/2400', cdb(0x1b, 0, 0, 0, 0x30, 0));
  await fails(target, '5/2400', cdb(0x1b, 0, 0, 0, 0x02, 0));
});

test('what is not known or not valid is refused, with a pointer to it', async () => {
  const { target } = setUp();
  await fails(target, '5/2000', cdb10(0x7f, 0, 0));
  await fails(target, '5/2000', cdb10(0x5e, 0, 0));
  await fails(target, '5/2400', cdb(0x9e, 0x11, [0, 8], [32, 4], 0, 0));
  const wrong: [Uint8Array, number][] = [
    [cdb10(0x28, 0, 1, 0x20), 1],
    [cdb(0x28, 0, 0, 0, 0, 0, 0x40, 0, 1, 0), 6],
    [cdb(0x00, 0, 0, 0, 0, 0x04), 5],
    [cdb(0x1e, 0, 0, 0, 2, 0), 4],
  ];
  for (const [bytes, field] of wrong) {
    const { senseBytes } = await fails(target, '5/2400', bytes, { room: 512 });
    assert.equal(senseBytes[15] & 0xc0, 0xc0);
    assert.equal(Buffer.from(senseBytes).readUInt16BE(16), field);
  }
  await good(target, cdb(0x1e, 0, 0, 0, 1, 0));
  const luns = await good(target, cdb(0xa0, 0, 0, 0, 0, 0, [255, 4], 0, 0), { room: 255 });
  assert.equal(luns.toString('hex'), '0000000800000000'.padEnd(32, '0'));
});

test('REPORT SUPPORTED OPERATION CODES tells of what is answered, and of nothing else', async () => {
  const { target } = setUp();
  const report = (options: number, code: number, action = 0): Uint8Array =>
    cdb(0xa3, 0x0c, options, code, [action, 2], [4096, 4], 0, 0);
  const all = await good(target, report(0, 0), { room: 4096 });
  assert.equal(all.readUInt32BE(0), all.length - 4);
  const known = new Set<number>();
  for (let at = 4; at < all.length; at += 8) known.add(all[at]);
  for (let code = 0; code < 256; code += 1) {
    const command = new Uint8Array(16);
    command[0] = code;
    const { sense } = await run(target, command, { room: 512 });
    assert.equal(sense === '5/2000', !known.has(code), `operation code ${code}`);
  }
  const read16 = await good(target, report(1, 0x88), { room: 4096 });
  assert.equal(read16.toString('hex'), '00030010881affffffffffffffffffffffff0000');
  const capacity = await good(target, report(0x82, 0x9e, 0x10), { room: 4096 });
  assert.equal(capacity.subarray(0, 6).toString('hex'), '008300109e10');
  assert.equal(capacity.length, 4 + 16 + 12);
  assert.equal((await good(target, report(1, 0x7f), { room: 4096 }))[1], 1);
  await fails(target, '5/2400', report(1, 0x9e), { room: 4096 });
  await fails(target, '5/2400', report(2, 0x88), { room: 4096 });
});

test('GET LBA STATUS tells zeros from data', async () => {
  const { disk, target } = setUp();
  disk.bytes.fill(1, 0, 8192).fill(0, 8192, 16_384);
  const data = await good(target, cdb(0x9e, 0x12, [8, 8], [40, 4], 0, 0), { room: 40 });
  assert.equal(data.readUInt32BE(0), data.length - 4);
  assert.equal(
    data.subarray(8, 40).toString('hex'),
    ['0000000000000008', '00000008', '00000000', '0000000000000010', '00000010', '01000000'].join(
      '',
    ),
  );
  await fails(target, '5/2100', cdb(0x9e, 0x12, [BLOCKS, 8], [40, 4], 0, 0), { room: 40 });
});

test('names that do not fit are refused', () => {
  const { disk } = setUp();
  for (const wrong of [{ vendor: 'too long a' }, { serial: '' }, { wwn: 'x' }, { product: 'ä' }]) {
    assert.throws(() => new ScsiTarget(disk, { ...identity, ...wrong }), {
      code: 'ERR_SCSI_IDENTITY',
    });
  }
});
