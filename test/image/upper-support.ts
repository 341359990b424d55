import { randomUUID } from 'node:crypto';
import { globSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { readBootId } from '../../src/base/boot-id.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { createUpper, type UpperPaths } from '../../src/image/lsmt/create-upper.ts';
import { pendingPath } from '../../src/image/lsmt/pending-file.ts';
import type { UpperKind } from '../../src/image/lsmt/upper-map.ts';
import { openUpper } from '../../src/image/lsmt/upper.ts';
import { openWritableUpper, type WritableUpper } from '../../src/image/lsmt/writable-upper.ts';
import { digestOf, fileBytes, fixtures } from './lsmt-support.ts';

/** Of the headers in a file of pending changes. */
const BOOT_ID_AT = 8;
const HEADER_BYTES = 96;

export const kinds: readonly UpperKind[] = ['append', 'sparse'];

/** One step by which a fixture was made: MANIFEST of the fixtures. */
interface FixtureOp {
  op: 'write' | 'discard';
  offset: number;
  len: number;
  kind?: 'rand' | 'text' | 'fill' | 'zero';
  seed?: number;
}

export interface FixtureOps {
  vsize: number;
  uuid?: string;
  parent_uuid?: string;
  ops: FixtureOp[];
}

export function fixtureOps(name: string): FixtureOps {
  return JSON.parse(readFileSync(join(fixtures, name), 'utf8')) as FixtureOps;
}

/** Does what the original did. */
export async function replayOps(upper: WritableUpper, { ops }: FixtureOps): Promise<void> {
  for (const { op, offset, len, kind = 'zero', seed = 0 } of ops) {
    if (op === 'discard') await upper.discard(offset, len);
    else await upper.write(offset, payload(kind, seed, len));
  }
}

function payload(kind: NonNullable<FixtureOp['kind']>, seed: number, length: number): Buffer {
  if (kind === 'rand') return splitMix(BigInt(seed), length);
  if (kind !== 'text') return Buffer.alloc(length, kind === 'fill' ? seed & 0xff : 0);
  const hex = seed.toString(16).padStart(16, '0');
  let text = '';
  for (let line = 0; text.length < length; line += 1) {
    const number = String(line).padStart(8, '0');
    text += `seed=${hex} line=${number} the quick brown fox jumps over the lazy dog\n`;
  }
  return Buffer.from(text.slice(0, length));
}

function splitMix(seed: bigint, length: number): Buffer {
  const bytes = Buffer.alloc(Math.ceil(length / 8) * 8);
  for (let at = 0, i = 1n; at < length; at += 8, i += 1n) {
    let z = BigInt.asUintN(64, seed + i * 0x9e37_79b9_7f4a_7c15n);
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    bytes.writeBigUInt64LE(z ^ (z >> 31n), at);
  }
  return bytes.subarray(0, length);
}

/** A folder of its own for a test. */
export function testFolder(t: Pick<TestContext, 'after'>): string {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-upper-'));
  t.after(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export function pathsIn(folder: string, name = 'upper'): UpperPaths {
  return { data: join(folder, `${name}.data`), index: join(folder, `${name}.index`) };
}

/** A new writable layer, open. */
export async function newUpper(
  paths: UpperPaths,
  kind: UpperKind,
  virtualSizeBytes: number,
): Promise<WritableUpper> {
  await createUpper({ ...paths, kind, virtualSizeBytes });
  return await openWritableUpper(paths);
}

/** Makes what layers of a folder have pending look as if it were from before the machine started. */
export function pretendReboot(folder: string): void {
  for (const path of globSync(join(folder, pendingPath('*')))) changeBootId(path);
}

function changeBootId(path: string): void {
  const bytes = readFileSync(path);
  const bootId = Buffer.from(readBootId());
  for (let at = bytes.indexOf(bootId); at >= 0; at = bytes.indexOf(bootId, at + 1)) {
    bytes.write(randomUUID(), at, 'latin1');
    const header = bytes.subarray(at - BOOT_ID_AT, at - BOOT_ID_AT + HEADER_BYTES);
    header.writeUInt32LE(crc32c(header.subarray(0, -4)), HEADER_BYTES - 4);
  }
  writeFileSync(path, bytes);
}

/** SHA-256 of the disk that a writable layer alone makes, read from its files. */
export async function digestOfUpper({ data, index }: UpperPaths): Promise<string> {
  const upper = await openUpper(data, index);
  return await digestOf([{ entries: upper, bytes: fileBytes(data) }], upper.virtualSizeBytes);
}
