import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ReplaybdError, type ErrnoName } from '../../src/base/errors.ts';
import { ScsiCommand } from '../../src/frontend/tcmu/scsi/command.ts';
import { naaOfSerial } from '../../src/frontend/tcmu/scsi/identity.ts';
import { ScsiTarget } from '../../src/frontend/tcmu/scsi/target.ts';
import { cdb, cdb10, cdb16, unmapList } from '../support/cdb.ts';
import { MemoryDevice, patternedBytes } from './nbd-fixture.ts';

// Goal: every command does what SPC-4 and SBC-3 say, and everything else gets the right sense data.
// Method: commands against a target over a disk in memory; replies compared byte by byte with what
// the standards' tables have, and the disk with what it should hold.

const SIZE_BYTES = 256 * 1024;
const BLOCKS = SIZE_BYTES / 512;
const identity = {
  vendor: 'LIO-ORG',
  product: 'TCMU device',
  revision: '0002',
  serial: '6bf9dc63-9a3f-4a25-8c5f-0123456789ab',
  wwn: naaOfSerial('6bf9dc63-9a3f-4a25-8c5f-0123456789ab'),
};

/** A disk whose size and failures can be told. */
class TestDisk extends MemoryDevice {
  sizeBytes = SIZE_BYTES;
  failure: ErrnoName | null = null;

  constructor(writable = true) {
    super(patternedBytes(SIZE_BYTES), { writable, missEvery: 5 });
    const { writer } = this;
    if (writer === undefined) return;
    const write = writer.write.bind(writer);
    writer.write = async (...request) => {
      if (this.failure !== null) this.#fail(this.failure);
      await write(...request);
    };
  }

  override get virtualSizeBytes(): number {
    return this.sizeBytes;
  }

  override async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    if (this.failure !== null) this.#fail(this.failure);
    await super.read(offset, into, signal);
  }

  #fail(errno: ErrnoName): never {
    throw new ReplaybdError('ERR_TEST', 'the disk fails', { errno });
  }
}

interface Answer {
  status: number;
  /** KEY/ASC/ASCQ in hexadecimal. */
  sense: string;
  senseBytes: Uint8Array;
  data: Buffer;
}

interface Buffers {
  out?: Uint8Array;
  /** Room for data to the initiator. */
  room?: number;
}

async function run(target: ScsiTarget, bytes: Uint8Array, buffers: Buffers = {}): Promise<Answer> {
  const command = new ScsiCommand();
  command.cdb.set(bytes);
  command.cdbLength = bytes.length;
  const room = buffers.out ?? new Uint8Array(buffers.room ?? 0).fill(0xee);
  // Two parts of no particular length, so that nothing depends on how data lies in memory.
  command.data.add(room.subarray(0, Math.floor(room.length / 3)));
  command.data.add(room.subarray(Math.floor(room.length / 3)));
  await target.execute(command);
  const { sense, senseLength, status } = command;
  const codes = Buffer.from(sense.subarray(12, 14)).toString('hex');
  return {
    status,
    sense: senseLength === 0 ? '' : `${sense[2].toString(16)}/${codes}`,
    senseBytes: sense.slice(0, senseLength),
    data: Buffer.from(room.subarray(0, command.dataInLength)),
  };
}

function setUp(writable = true): { disk: TestDisk; target: ScsiTarget } {
  const disk = new TestDisk(writable);
  return { disk, target: new ScsiTarget(disk, identity) };
}

async function good(target: ScsiTarget, bytes: Uint8Array, buffers?: Buffers): Promise<Buffer> {
  const { status, sense, data } = await run(target, bytes, buffers);
  assert.equal(status, 0, sense);
  return data;
}

async function fails(
  target: ScsiTarget,
  expected: string,
  bytes: Uint8Array,
  buffers?: Buffers,
): Promise<Answer> {
  const answer = await run(target, bytes, buffers);
  assert.equal(answer.status, 2);
  assert.equal(answer.sense, expected);
  assert.equal(answer.data.length, 0);
  return answer;
}

const inquiry = (page: number | null): Uint8Array =>
  cdb(0x12, page === null ? 0 : 1, page ?? 0, [255, 2], 0);

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
  assert.equal(limits.readUInt32BE(16), 2 ** 22);
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
    { lba: 0, blocks: 2 ** 22 },
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
  for (const command of [cdb10(0x2a, 0, 2), cdb10(0x41, 0, 2)]) {
    await good(target, command, { out });
    assert.match(disk.calls.at(-1) ?? '', /flush|write-fua/);
  }
  disk.calls.length = 0;
  await good(target, cdb10(0x35, 0, 0));
  assert.deepEqual(disk.calls, ['flush']);
  target.reset();
  assert.equal(await cache(), 4);
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

test('UNMAP and WRITE SAME leave zeros, or the data they are given', async () => {
  const { disk, target } = setUp();
  const block = (lba: number): Buffer => disk.bytes.subarray(lba * 512, lba * 512 + 512);
  const list = unmapList([
    { lba: 1, blocks: 2 },
    { lba: 9, blocks: 0 },
    { lba: 20, blocks: 1 },
  ]);
  const kept = Buffer.from(block(3));
  await good(target, cdb10(0x42, 0, list.length), { out: list });
  for (const lba of [1, 2, 20]) assert.ok(block(lba).every((byte) => byte === 0));
  assert.deepEqual(block(3), kept);
  assert.deepEqual(disk.calls, ['discard', 'discard']);
  await good(target, cdb10(0x42, 0, 0));
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
  await fails(target, '5/2400', command, { out: Buffer.alloc(1023) });
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
