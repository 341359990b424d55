import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { ZFileWriter, type ZFileWriterOptions } from '../../src/image/zfile/writer.ts';
import { MemorySink } from '../../bench/support/memory-sink.ts';

const folder = new URL('../fixtures/zfile/', import.meta.url);

export interface ZFileExpectation {
  rawSizeBytes: number;
  rawSha256: string;
}

/** ZFiles that the original tools wrote, and what they hold. */
export const expectations = JSON.parse(
  readFileSync(new URL('expected.json', folder), 'utf8'),
) as Record<string, ZFileExpectation>;

export function fixture(name: string): Buffer {
  return readFileSync(new URL(name, folder));
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** What the writer makes of `plain`, handed over in pieces of these sizes, over and over. */
export async function writeZFile(
  plain: Uint8Array,
  options: ZFileWriterOptions = {},
  pieces: readonly number[] = [plain.length],
): Promise<Buffer> {
  const sink = new MemorySink();
  const writer = new ZFileWriter(sink, options);
  let at = 0;
  for (let turn = 0; at < plain.length; turn += 1) {
    const size = Math.max(pieces[turn % pieces.length], 1);
    await writer.write(plain.subarray(at, at + size));
    at += size;
  }
  await writer.finish();
  return sink.bytes;
}

/** Bytes of the kinds a disk holds, always the same for a seed: noise, text, zeros, runs. */
export function syntheticBytes(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  let state = (seed * 2_654_435_761 + 1) >>> 0;
  const next = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
  for (let at = 0; at < sizeBytes;) {
    const end = Math.min(at + 1 + (next() % 20_000), sizeBytes);
    const kind = next() % 4;
    if (kind === 0) for (; at < end; at += 1) bytes[at] = next();
    else if (kind === 1) bytes.fill(`line ${next()} of some text\n`, at, end);
    else if (kind === 2) bytes.fill(next() & 0xff, at, end);
    at = end;
  }
  return bytes;
}

/** Bytes that no codec makes smaller. */
export function noise(sizeBytes: number): Buffer {
  const blocks: Buffer[] = [];
  for (let at = 0; at < sizeBytes; at += 32) {
    blocks.push(createHash('sha256').update(`noise ${at}`).digest());
  }
  return Buffer.concat(blocks).subarray(0, sizeBytes);
}

/** The 28,672-byte committed LSMT file of the format notes' first golden vector. */
export function goldenLsmt(): Buffer {
  const bytes = Buffer.alloc(28_672);
  lsmtRecord(bytes, 0, { flags: 7, indexOffset: 0, indexSize: 0 });
  bytes.fill('A', 4096, 4096 + 512);
  bytes.fill('C', 4096 + 512, 4096 + 1024);
  bytes.fill('A', 4096 + 1024, 8192);
  bytes.fill('D', 8192, 12_288);
  bytes.fill('B', 12_288, 20_480);
  const entries = [
    [0n | (16n << 50n), 8n],
    [2048n | (16n << 50n), 24n],
    [4096n | (8n << 50n), 40n | (1n << 55n)],
  ];
  for (let entry = 0; entry < 256; entry += 1) {
    const [where, mapped] = entries[entry] ?? [(1n << 50n) - 1n, 0n];
    bytes.writeBigUInt64LE(where, 20_480 + entry * 16);
    bytes.writeBigUInt64LE(mapped, 20_480 + entry * 16 + 8);
  }
  lsmtRecord(bytes, 24_576, { flags: 6, indexOffset: 20_480, indexSize: 256 });
  return bytes;
}

function lsmtRecord(
  bytes: Buffer,
  at: number,
  fields: { flags: number; indexOffset: number; indexSize: number },
): void {
  bytes.write('4c534d5400010200657e63d29444084ca2d2c8ec4fcfae8a86010000', at, 'hex');
  bytes.writeUInt32LE(fields.flags, at + 28);
  bytes.writeBigUInt64LE(BigInt(fields.indexOffset), at + 32);
  bytes.writeBigUInt64LE(BigInt(fields.indexSize), at + 40);
  bytes.writeBigUInt64LE(1n << 30n, at + 48);
  bytes.write('99999999-8888-4777-8666-555555555555', at + 56, 'latin1');
  bytes.write('AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE', at + 93, 'latin1');
  bytes.writeUInt8(1, at + 132);
  bytes.writeUInt8(1, at + 133);
  bytes.write('hello tag', at + 134, 'latin1');
}
