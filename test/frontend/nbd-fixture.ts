import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { DeviceExtent, DeviceWriter } from '../../src/device/block-device.ts';
import type { NbdDevice } from '../../src/frontend/nbd/export.ts';

const BLOCK_BYTES = 4096;

export interface MemoryDeviceOptions {
  id?: string;
  writable?: boolean;
  /** Every how many blocks one is not local, so that it takes an asynchronous read. 0: none. */
  missEvery?: number;
  /** Longest delay of a miss; delays vary, so replies change order. */
  delayMsMax?: number;
}

/** A device over a buffer. Some of its blocks are missing until they have been read once. */
export class MemoryDevice implements NbdDevice {
  readonly id: string;
  readonly bytes: Buffer;
  readonly readOnly: boolean;
  readonly writer?: DeviceWriter;
  readonly calls: string[] = [];
  readonly #missing = new Set<number>();
  readonly #delayMsMax: number;
  #reads = 0;

  constructor(bytes: Buffer, options: MemoryDeviceOptions = {}) {
    this.bytes = bytes;
    this.id = options.id ?? 'memory';
    this.readOnly = options.writable !== true;
    this.#delayMsMax = options.delayMsMax ?? 0;
    const every = options.missEvery ?? 0;
    for (let block = 0; every > 0 && block < bytes.length / BLOCK_BYTES; block += every) {
      this.#missing.add(block);
    }
    if (options.writable === true) this.writer = this.#makeWriter();
  }

  get virtualSizeBytes(): number {
    return this.bytes.length;
  }

  get missing(): number {
    return this.#missing.size;
  }

  readCached(offset: number, into: Uint8Array): boolean {
    for (const block of blocksOf(offset, into.length)) if (this.#missing.has(block)) return false;
    into.set(this.bytes.subarray(offset, offset + into.length));
    return true;
  }

  async read(offset: number, into: Uint8Array, signal?: AbortSignal): Promise<void> {
    this.#reads += 1;
    const delayMs = this.#delayMsMax * ((this.#reads * 7919) % 101) * 0.01;
    await sleep(delayMs, undefined, signal === undefined ? {} : { signal });
    into.set(this.bytes.subarray(offset, offset + into.length));
    for (const block of blocksOf(offset, into.length)) this.#missing.delete(block);
  }

  /** By the bytes themselves, a block at a time; ends early, as the contract allows. */
  extents(offset: number, length: number): DeviceExtent[] {
    const extents: DeviceExtent[] = [];
    let at = offset;
    while (at < offset + length && extents.length < 600) {
      const end = Math.min(at - (at % BLOCK_BYTES) + BLOCK_BYTES, offset + length);
      const zero = isZero(this.bytes.subarray(at, end));
      extents.push({ offset: at, length: end - at, zero });
      at = end;
    }
    return extents;
  }

  #makeWriter(): DeviceWriter {
    const clear = async (name: string, offset: number, length: number): Promise<void> => {
      this.calls.push(name);
      await sleep(1);
      this.bytes.fill(0, offset, offset + length);
    };
    return {
      write: async (offset, data, fua) => {
        this.calls.push(fua ? 'write-fua' : 'write');
        await sleep(1);
        this.bytes.set(data, offset);
      },
      flush: async () => {
        this.calls.push('flush');
        await sleep(1);
      },
      discard: async (offset, length) => await clear('discard', offset, length),
      writeZeroes: async (offset, length) => await clear('zeroes', offset, length),
    };
  }
}

/** Blocks that all differ, with runs of zeros of several lengths between them. */
export function patternedBytes(sizeBytes: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let block = 0; block * BLOCK_BYTES < sizeBytes; block += 1) {
    if (block % 64 >= 40 || block % 16 === 3) continue;
    const digest = createHash('sha256').update(`block ${block}`).digest();
    const start = block * BLOCK_BYTES;
    for (let at = start; at < Math.min(start + BLOCK_BYTES, sizeBytes); at += digest.length) {
      digest.copy(bytes, at);
    }
  }
  return bytes;
}

/** A folder that goes away with the test. */
export async function temporaryFolder(context: TestContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'replaybd-nbd-'));
  context.after(async () => await rm(folder, { recursive: true, force: true }));
  return folder;
}

export interface Finished {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a client to its end; the server lives in this process, so nothing here may block. */
export async function runClient(program: string, args: readonly string[]): Promise<Finished> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return { status, stdout, stderr };
}

/** Why a test of this program cannot run here, or false when it can. */
export function skipWithout(program: string): string | false {
  for (const folder of (process.env.PATH ?? '').split(':')) {
    try {
      accessSync(join(folder, program), constants.X_OK);
      return false;
    } catch {
      continue;
    }
  }
  return `${program} is not installed`;
}

export function isZero(bytes: Buffer): boolean {
  return bytes.equals(Buffer.alloc(bytes.length));
}

function blocksOf(offset: number, length: number): number[] {
  const first = Math.floor(offset / BLOCK_BYTES);
  const last = Math.floor((offset + length - 1) / BLOCK_BYTES);
  return Array.from({ length: last - first + 1 }, (_, index) => first + index);
}
