import assert from 'node:assert/strict';
import { ReplaybdError, type ErrnoName } from '../../src/base/errors.ts';
import { ScsiCommand } from '../../src/frontend/tcmu/scsi/command.ts';
import { naaOfSerial } from '../../src/frontend/tcmu/scsi/identity.ts';
import { ScsiTarget } from '../../src/frontend/tcmu/scsi/target.ts';
import { cdb } from '../support/cdb.ts';
import { MemoryDevice, patternedBytes } from './nbd-fixture.ts';

export const SIZE_BYTES = 256 * 1024;
export const BLOCKS = SIZE_BYTES / 512;
export const identity = {
  vendor: 'LIO-ORG',
  product: 'TCMU device',
  revision: '0002',
  serial: '6bf9dc63-9a3f-4a25-8c5f-0123456789ab',
  wwn: naaOfSerial('6bf9dc63-9a3f-4a25-8c5f-0123456789ab'),
};

/** A disk whose size and failures can be told. */
export class TestDisk extends MemoryDevice {
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

export interface Answer {
  status: number;
  /** KEY/ASC/ASCQ in hexadecimal. */
  sense: string;
  senseBytes: Uint8Array;
  data: Buffer;
}

export interface Buffers {
  out?: Uint8Array;
  /** Room for data to the initiator. */
  room?: number;
}

export async function run(
  target: ScsiTarget,
  bytes: Uint8Array,
  buffers: Buffers = {},
): Promise<Answer> {
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

export function setUp(writable = true): { disk: TestDisk; target: ScsiTarget } {
  const disk = new TestDisk(writable);
  return { disk, target: new ScsiTarget(disk, identity) };
}

export async function good(
  target: ScsiTarget,
  bytes: Uint8Array,
  buffers?: Buffers,
): Promise<Buffer> {
  const { status, sense, data } = await run(target, bytes, buffers);
  assert.equal(status, 0, sense);
  return data;
}

export async function fails(
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

/** INQUIRY, for the standard data or a page of VPD. */
export const inquiry = (page: number | null): Uint8Array =>
  cdb(0x12, page === null ? 0 : 1, page ?? 0, [255, 2], 0);
