import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FuseReply,
  FuseRequest,
  opcodes,
  requestBufferBytes,
  type FuseFile,
} from '../../src/frontend/fuse/protocol.ts';

// Goal: requests and replies have the layout of linux/fuse.h, whatever the numbers.
// Method: structures written out by hand, field by field; no mount.

const file: FuseFile = { sizeBytes: 5 * 2 ** 32 + 512, readOnly: true };

/** A request with u32 words from byte 0. */
function requestOf(...words: number[]): FuseRequest {
  const bytes = Buffer.alloc(requestBufferBytes(file));
  words.forEach((word, index) => bytes.writeUInt32LE(word, index * 4));
  return new FuseRequest(bytes);
}

const header = (opcode: number): number[] => [80, opcode, 0xfffffffe, 3, 1, 0, 0, 0, 0, 0];

function sent(reply: FuseReply, length: number): Buffer {
  return reply.bytes.subarray(FuseReply.HEADER_AT, FuseReply.HEADER_AT + length);
}

test('a read request is read, beyond 32 bits', () => {
  const request = requestOf(...header(opcodes.read), 0, 0, 0x80000000, 0x1f, 131_072);
  assert.equal(request.length, 80);
  assert.equal(request.opcode, 15);
  assert.equal(request.unique, 3 * 2 ** 32 + 0xfffffffe);
  assert.equal(request.offset, 0x1f * 2 ** 32 + 0x80000000);
  assert.equal(request.size, 131_072);
});

test('a reply carries its request number and errno', () => {
  const reply = new FuseReply(1024);
  const length = reply.finish(3 * 2 ** 32 + 0xfffffffe, 0, 30);
  assert.equal(sent(reply, length).toString('hex'), '10000000e2fffffffeffffff03000000');
});

test('a payload lies directly behind its header', () => {
  const reply = new FuseReply(1024);
  reply.payload(2).fill(7);
  reply.payload(2).set([1, 2, 3], 500);
  reply.shift(500, 4);
  const length = reply.finish(2, 4);
  assert.equal(
    sent(reply, length).toString('hex'),
    '14000000000000000200000000000000' + '01020307',
  );
});

test('attributes are those of a regular file of the size', () => {
  const reply = new FuseReply(1024);
  const bytes = sent(reply, reply.finish(2, reply.attributes(file)));
  assert.equal(bytes.length, 16 + 104);
  assert.equal(bytes.readBigUInt64LE(16 + 24), BigInt(file.sizeBytes));
  assert.equal(bytes.readBigUInt64LE(16 + 32), BigInt(file.sizeBytes / 512));
  assert.equal(bytes.readUInt32LE(16 + 76), 0o100444);
  assert.equal(bytes.readUInt32LE(16 + 80), 1);
});

test('INIT asks for no more than the kernel offers, and refuses an old one', () => {
  const reply = new FuseReply(1024);
  const offered = 1 | (1 << 22) | (1 << 27);
  const request = requestOf(...header(opcodes.init), 7, 45, 131_072, offered);
  const bytes = sent(reply, reply.finish(2, reply.init(request, file) ?? 0));
  assert.equal(bytes.length, 16 + 64);
  assert.equal(bytes.readUInt32LE(16), 7);
  assert.equal(bytes.readUInt32LE(16 + 12), 1 | (1 << 22));
  assert.equal(bytes.readUInt16LE(16 + 28), 256);
  assert.equal(reply.init(requestOf(...header(opcodes.init), 7, 27, 0, 0), file), null);
});

test('a size change and a writing open are recognised', () => {
  const truncate = requestOf(...header(opcodes.setattr), 8, 0, 0, 0, 4096, 1);
  assert.equal(truncate.newSize, 2 ** 32 + 4096);
  assert.equal(requestOf(...header(opcodes.setattr), 1, 0, 0, 0, 4096, 1).newSize, null);
  for (const [flags, writes] of [
    [0x8000, false],
    [0x8001, true],
    [0x8002, true],
  ] as const) {
    assert.equal(requestOf(...header(opcodes.open), flags).opensForWriting, writes);
  }
});
