import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ErrnoName } from '../../src/base/errors.ts';
import { ScsiTarget } from '../../src/frontend/tcmu/scsi/target.ts';
import { cdb, cdb10, cdb16, unmapList } from '../support/cdb.ts';
import { BLOCKS, TestDisk, fails, good, identity, inquiry, run, setUp } from './scsi-fixture.ts';

// Goal: reads and changes do what SBC-3 says, to the disk and to nothing else.
// Method: commands against a target over a disk in memory, and the disk compared with what it should
// hold; sense data compared with what the standards have.

test('READ and WRITE of every length of CDB', async () => {
  const { disk, target } = setUp();
  const forms = [
    (op: number, lba: number) => cdb(op + 0x08, 0, [lba, 2], 8, 0),
    (op: number, lba: number) => cdb10(op + 0x28, lba, 8),
    (op: number, lba: number) => cdb(op + 0xa8, 0, [lba, 4], [8, 4], 0, 0),
    (op: number, lba: number) => cdb16(op + 0x88, lba, 8),
  ];
  for (const [i, form] of forms.entries()) {
    const lba = 16 + i * 21;
    const before = Buffer.from(disk.bytes.subarray(lba * 512, lba * 512 + 4096));
    assert.deepEqual(await good(target, form(0, lba), { room: 4096 }), before);
    const fresh = Buffer.alloc(4096, i + 1);
    await good(target, form(2, lba), { out: fresh });
    assert.ok(disk.bytes.subarray(lba * 512, lba * 512 + 4096).equals(fresh));
  }
  // 0 blocks of a 6-byte command are 256.
  assert.equal((await good(target, cdb(0x08, 0, 0, 0, 0, 0), { room: 131_072 })).length, 131_072);
  assert.equal((await good(target, cdb10(0x28, 5, 0), { room: 0 })).length, 0);
  // A smaller buffer is filled; a larger one says what it got.
  assert.equal((await good(target, cdb10(0x28, 0, 4), { room: 700 })).length, 700);
  assert.equal((await good(target, cdb10(0x28, 0, 1), { room: 700 })).length, 512);
  await fails(target, '5/2400', cdb10(0x2a, 0, 2), { out: Buffer.alloc(512) });
});

test('blocks outside the disk are refused, and nothing is done', async () => {
  const { disk, target } = setUp();
  const before = Buffer.from(disk.bytes);
  const data = { out: Buffer.alloc(8192, 1) };
  for (const [lba, blocks] of [
    [BLOCKS, 0],
    [BLOCKS, 1],
    [BLOCKS - 1, 2],
    [2 ** 32 - 1, 1],
  ] as const) {
    for (const op of [0x28, 0x2a, 0x2e, 0x2f, 0x35, 0x41]) {
      await fails(target, '5/2100', cdb10(op, lba, blocks), data);
    }
  }
  await fails(target, '5/2100', cdb16(0x88, 2 ** 52, 1), data);
  const list = unmapList([
    { lba: 0, blocks: 8 },
    { lba: BLOCKS - 1, blocks: 2 },
  ]);
  await fails(target, '5/2100', cdb10(0x42, 0, list.length), { out: list });
  await fails(target, '5/2100', cdb(0x89, 0, [BLOCKS - 1, 8], 0, 0, 0, 2, 0, 0), data);
  assert.ok(disk.bytes.equals(before));
});

test('commands larger than VPD page B0 allows are refused', async () => {
  const disk = new TestDisk();
  disk.sizeBytes = 4 * 2 ** 30;
  const target = new ScsiTarget(disk, identity);
  const out = Buffer.alloc(512);
  for (const op of [0x88, 0x8a, 0x8f]) await fails(target, '5/2400', cdb16(op, 0, 8193), { out });
  await fails(target, '5/2400', cdb16(0x93, 0, 2 ** 20 + 1), { out });
  const list = unmapList([
    { lba: 0, blocks: 2 ** 20 },
    { lba: 0, blocks: 1 },
  ]);
  await fails(target, '5/2600', cdb10(0x42, 0, list.length), { out: list });
});

test('FUA and a disabled write cache make writes durable; the cache is told as it is', async () => {
  const { disk, target } = setUp();
  const out = Buffer.alloc(1024, 1);
  const cache = async (control = 0): Promise<number> => {
    const data = await good(target, cdb(0x1a, 8, (control << 6) | 0x08, 0, 255, 0), { room: 255 });
    assert.equal(data.subarray(0, 6).toString('hex', 0, 4), '17001000');
    return data[4 + 2];
  };
  assert.deepEqual([await cache(), await cache(1), await cache(2)], [4, 4, 4]);
  await good(target, cdb10(0x2a, 0, 2), { out });
  assert.ok(!disk.calls.some((call) => call === 'flush' || call === 'write-fua'));
  await good(target, cdb10(0x2a, 0, 2, 0x08), { out });
  assert.match(disk.calls.at(-1) ?? '', /flush|write-fua/);
  const select = Buffer.alloc(24);
  select.set([0x08, 18, 0x00], 4);
  await good(target, cdb(0x15, 0x10, 0, 0, 24, 0), { out: select });
  assert.equal(disk.calls.at(-1), 'flush');
  assert.equal(await cache(), 0);
  disk.calls.length = 0;
  for (const [command, dataOut] of [
    [cdb10(0x2a, 0, 2), out],
    [cdb10(0x41, 0, 2), out.subarray(512)],
  ] as const) {
    await good(target, command, { out: dataOut });
    assert.match(disk.calls.at(-1) ?? '', /flush|write-fua/);
  }
  disk.calls.length = 0;
  await good(target, cdb10(0x35, 0, 0));
  assert.deepEqual(disk.calls, ['flush']);
  target.reset();
  assert.equal(await cache(), 4);
});

test('a disk that was served before is written through until it is flushed', async () => {
  const disk = new TestDisk();
  const target = new ScsiTarget(disk, identity, { isAdopted: true });
  const mode = await good(target, cdb(0x1a, 8, 0x08, 0, 255, 0), { room: 255 });
  assert.equal(mode[4 + 2], 4);
  const list = unmapList([{ lba: 0, blocks: 1 }]);
  const data = Buffer.alloc(1024, 1);
  for (const [command, dataOut] of [
    [cdb10(0x2a, 0, 2), data],
    [cdb10(0x41, 0, 2), data.subarray(512)],
    [cdb10(0x42, 0, list.length), list],
    [
      cdb(0x89, 0, [8, 8], 0, 0, 0, 1, 0, 0),
      Buffer.concat([disk.bytes.subarray(4096, 4608), data.subarray(512)]),
    ],
  ] as const) {
    disk.calls.length = 0;
    await good(target, command, { out: dataOut });
    assert.match(disk.calls.at(-1) ?? '', /flush|write-fua/);
  }
  await good(target, cdb10(0x35, 0, 0));
  disk.calls.length = 0;
  await good(target, cdb10(0x2a, 0, 2), { out: data });
  assert.deepEqual(disk.calls, ['write']);
});

test('UNMAP and WRITE SAME leave zeros, or the data they are given', async () => {
  const { disk, target } = setUp();
  const block = (lba: number): Buffer => disk.bytes.subarray(lba * 512, lba * 512 + 512);
  const list = unmapList([
    { lba: 1, blocks: 2 },
    { lba: 9, blocks: 0 },
    { lba: 20, blocks: 1 },
    { lba: BLOCKS, blocks: 0 },
  ]);
  const kept = Buffer.from(block(3));
  await good(target, cdb10(0x42, 0, list.length), { out: list });
  for (const lba of [1, 2, 20]) assert.ok(block(lba).every((byte) => byte === 0));
  assert.deepEqual(block(3), kept);
  assert.deepEqual(disk.calls, ['discard', 'discard']);
  await good(target, cdb10(0x42, 0, 0));
  const beyond = unmapList([{ lba: BLOCKS + 1, blocks: 0 }]);
  await fails(target, '5/2100', cdb10(0x42, 0, beyond.length), { out: beyond });
  await fails(target, '5/1a00', cdb10(0x42, 0, 4), { out: list });
  const many = unmapList(Array.from({ length: 257 }, () => ({ lba: 0, blocks: 1 })));
  await fails(target, '5/2600', cdb10(0x42, 0, many.length), { out: many });

  const seven = Buffer.alloc(512, 7);
  const zeros = Buffer.alloc(512);
  for (const flags of [0x00, 0x08]) {
    await good(target, cdb16(0x93, 40, 9, flags), { out: seven });
    for (let lba = 40; lba < 49; lba += 1) assert.deepEqual(block(lba), seven);
    disk.calls.length = 0;
    await good(target, cdb10(0x41, 40, 9, flags), { out: zeros });
    assert.deepEqual(disk.calls, [flags === 0 ? 'zeroes' : 'discard']);
  }
  await good(target, cdb16(0x93, 40, 9), { out: seven });
  await good(target, cdb16(0x93, 41, 2, 0x01));
  assert.deepEqual(block(40), seven);
  assert.deepEqual(block(41), zeros);
  await fails(target, '5/2400', cdb16(0x93, 40, 0), { out: seven });
  await fails(target, '5/2400', cdb10(0x41, 40, 1, 0x01), { out: seven });
  await fails(target, '5/2400', cdb16(0x93, 40, 1), {});
  await fails(target, '5/2400', cdb16(0x93, 40, 2), { out: Buffer.alloc(1024) });
});

test('VERIFY and WRITE AND VERIFY compare when they are asked to', async () => {
  const { disk, target } = setUp();
  const data = Buffer.from(disk.bytes.subarray(2 * 512, 10 * 512));
  await good(target, cdb10(0x2f, 2, 8));
  await good(target, cdb16(0x8f, 2, 8, 0x02), { out: data });
  data[1234] ^= 1;
  const { senseBytes } = await fails(target, 'e/1d00', cdb10(0x2f, 2, 8, 0x02), { out: data });
  assert.equal(Buffer.from(senseBytes).readUInt32BE(3), 1234);
  assert.equal(senseBytes[0], 0xf0);
  await good(target, cdb10(0x2e, 2, 8, 0x02), { out: data });
  assert.ok(disk.bytes.subarray(2 * 512, 10 * 512).equals(data));
  await fails(target, '5/2400', cdb10(0x2f, 2, 8, 0x04), { out: data });
});

test('COMPARE AND WRITE: of many that expect the same, one is done', async () => {
  const { disk, target } = setUp();
  const before = Buffer.from(disk.bytes.subarray(5 * 512, 6 * 512));
  const command = cdb(0x89, 0, [5, 8], 0, 0, 0, 1, 0, 0);
  const writes = Array.from({ length: 8 }, (_, i) => Buffer.alloc(512, i + 1));
  const answers = await Promise.all([
    ...writes.map((fresh) => run(target, command, { out: Buffer.concat([before, fresh]) })),
  ]);
  assert.equal(answers.filter(({ status }) => status === 0).length, 1);
  assert.equal(answers.filter(({ sense }) => sense === 'e/1d00').length, 7);
  const winner = answers.findIndex(({ status }) => status === 0);
  assert.ok(disk.bytes.subarray(5 * 512, 6 * 512).equals(writes[winner]));
  for (const length of [1023, 1025, 2048]) {
    await fails(target, '5/2400', command, { out: Buffer.alloc(length) });
  }
});

test('COMPARE AND WRITE and writes of the same blocks take effect in the order they came', async () => {
  const { disk, target } = setUp();
  const blocks = (fill: number): Buffer => Buffer.alloc(1024, fill);
  const before = Buffer.from(disk.bytes.subarray(0, 1024));
  const compare = cdb(0x89, 0, [0, 8], 0, 0, 0, 2, 0, 0);
  const first = await Promise.all([
    run(target, compare, { out: Buffer.concat([before, blocks(1)]) }),
    run(target, cdb10(0x2a, 1, 2), { out: blocks(2) }),
  ]);
  assert.deepEqual(
    first.map(({ status }) => status),
    [0, 0],
  );
  const after = Buffer.concat([blocks(1).subarray(0, 512), blocks(2)]);
  assert.deepEqual(disk.bytes.subarray(0, 1536), after);
  const second = await Promise.all([
    run(target, cdb10(0x2a, 0, 2), { out: blocks(3) }),
    run(target, compare, { out: Buffer.concat([blocks(3), blocks(4)]) }),
  ]);
  assert.deepEqual(
    second.map(({ status }) => status),
    [0, 0],
  );
  assert.deepEqual(disk.bytes.subarray(0, 1024), blocks(4));
});

test('a disk that cannot be written says so', async () => {
  const { target } = setUp(false);
  const out = Buffer.alloc(1024);
  const changes = [0x2a, 0x2e, 0x41, 0x42].map((op) => cdb10(op, 0, 1));
  changes.push(cdb16(0x8a, 0, 1), cdb16(0x93, 0, 1), cdb(0x89, 0, [0, 8], 0, 0, 0, 1, 0, 0));
  for (const command of changes) await fails(target, '7/2700', command, { out });
  const mode = await good(target, cdb(0x1a, 8, 0x08, 0, 255, 0), { room: 255 });
  assert.equal(mode[2], 0x90);
  assert.equal(mode[4 + 2], 0);
  assert.equal((await good(target, inquiry(0xb2), { room: 255 }))[5], 0x04);
  await good(target, cdb10(0x35, 0, 0));
});

test('errors of the disk become sense data with the first block', async () => {
  const { disk, target } = setUp();
  const cases: [ErrnoName, string, string][] = [
    ['EIO', '3/1100', '3/0c00'],
    ['ENOSPC', '7/2707', '7/2707'],
    ['EROFS', '7/2700', '7/2700'],
    ['ETIMEDOUT', 'b/0801', 'b/0801'],
  ];
  for (const [errno, onRead, onWrite] of cases) {
    disk.failure = errno;
    const { senseBytes } = await fails(target, onRead, cdb10(0x28, 40, 8), { room: 4096 });
    assert.equal(Buffer.from(senseBytes).readUInt32BE(3), 40);
    await fails(target, onWrite, cdb10(0x2a, 40, 8), { out: Buffer.alloc(4096) });
  }
});
