import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { closeSync, constants, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { mapMemory } from '../../../native/memory-map.ts';
import { output } from '../../support/programs.ts';
import { step } from './support.ts';

// Writes and reads a disk past the guest's page cache, on and on, while its back end on the host is killed and
// started again. Every byte has to be the last one written, and no request may fail. It ends when the host has
// written to a second disk.

const CHUNK_BYTES = 1024 * 1024;
const WRITTEN_AT = 40 * CHUNK_BYTES;
const READ_CHUNKS = 16;
const SIGNAL_BYTES = 4096;

const disk = openSync('/dev/vda', constants.O_RDWR | constants.O_DIRECT);
const signal = openSync('/dev/vdb', constants.O_RDONLY | constants.O_DIRECT);
// Direct I/O takes whole pages only.
const chunk = Buffer.from(mapMemory(CHUNK_BYTES, 'pages').bytes.buffer);

function readDigest(): string {
  const hash = createHash('sha256');
  for (let i = 0; i < READ_CHUNKS; i += 1) {
    assert.equal(readSync(disk, chunk, 0, CHUNK_BYTES, i * CHUNK_BYTES), CHUNK_BYTES);
    hash.update(chunk);
  }
  return hash.digest('hex');
}

function isToldToEnd(): boolean {
  readSync(signal, chunk, 0, SIGNAL_BYTES, 0);
  return chunk[0] !== 0;
}

try {
  const first = readDigest();
  let rounds = 0;
  for (; !isToldToEnd(); rounds += 1) {
    const at = WRITTEN_AT + (rounds % 4) * CHUNK_BYTES;
    assert.equal(writeSync(disk, chunk.fill(`round ${rounds} `), 0, CHUNK_BYTES, at), CHUNK_BYTES);
    // Who flushes is told of writes before they are durable: the next rounds are.
    if (rounds % 8 === 0) fsyncSync(disk);
    assert.equal(readSync(disk, chunk.fill(0), 0, CHUNK_BYTES, at), CHUNK_BYTES);
    assert.ok(chunk.equals(Buffer.alloc(CHUNK_BYTES, `round ${rounds} `)), `round ${rounds}`);
    assert.equal(readDigest(), first, `round ${rounds}`);
  }
  step(`${rounds} rounds`);
  assert.doesNotMatch(await output('dmesg'), /I\/O error|virtio.*(fail|broken)/);
} finally {
  closeSync(disk);
  closeSync(signal);
}
