import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import { SECTOR_BYTES } from '../../src/base/limits.ts';
import type { ByteSink } from '../../src/image/byte-sink.ts';
import { digestOfDisk } from '../../src/image/export.ts';
import type { LayerBytes } from '../../src/image/layer-bytes.ts';
import type { LsmtEntryColumns } from '../../src/image/lsmt/index-entries.ts';
import { findSegment, mergeLayers } from '../../src/image/lsmt/merged-index.ts';
import { ZERO_LAYER } from '../../src/image/stack-map.ts';

/** Layers that the original tools wrote; expected.json says what they read as. */
export const fixtures = new URL('../fixtures/lsmt/', import.meta.url).pathname;

export interface Expectation {
  /** Of the whole virtual disk. */
  sha256: string;
  virtualSizeBytes: number | null;
  /** LBA, sectors, mapped sector, zeroed. */
  segments?: number[][];
}

export const expectations = JSON.parse(
  readFileSync(join(fixtures, 'expected.json'), 'utf8'),
) as Record<string, Expectation>;

/** Unpacks the fixtures that travel as archives, holes kept; the caller removes the folder. */
export function unpackFixtures(): string {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-lsmt-'));
  mkdirSync(join(folder, 'lsmt'));
  const targets = { 'raw-layers.tar.zst': join(folder, 'lsmt'), 'sparse-files.tar.zst': folder };
  for (const [archive, target] of Object.entries(targets)) {
    const tar = zstdDecompressSync(readFileSync(join(fixtures, archive)));
    execFileSync('tar', ['-Sxf', '-', '-C', target], { input: tar });
  }
  return folder;
}

export function removeFolder(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

export function bytesOf(name: string, bytes: Uint8Array): LayerBytes {
  return {
    name,
    sizeBytes: bytes.length,
    read: async (offset, length) => {
      if (offset < 0 || offset + length > bytes.length) throw new RangeError('outside the layer');
      return bytes.subarray(offset, offset + length);
    },
  };
}

/** A file's bytes, read as they are asked for: some fixtures are a gibibyte of holes. */
export function fileBytes(path: string): LayerBytes {
  const read = async (offset: number, length: number) => {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, offset);
      if (bytesRead !== length) throw new RangeError('outside the layer');
      return buffer;
    } finally {
      await file.close();
    }
  };
  return { name: path, sizeBytes: statSync(path).size, read };
}

export class MemorySink implements ByteSink {
  readonly #chunks: Buffer[] = [];

  async write(bytes: Uint8Array): Promise<void> {
    this.#chunks.push(Buffer.from(bytes));
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#chunks);
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export interface OpenedLayer {
  columns: LsmtEntryColumns;
  bytes: LayerBytes;
}

/** An export source over layers whose LSMT files are at hand. */
export function diskOf(layers: readonly OpenedLayer[], virtualSizeBytes: number) {
  const index = mergeLayers(
    layers.map((layer) => layer.columns),
    virtualSizeBytes,
  );
  const read = async (offset: number, into: Uint8Array) => {
    into.fill(0);
    const lba = offset / SECTOR_BYTES;
    const end = lba + into.length / SECTOR_BYTES;
    for (let at = findSegment(index, lba); index.start[at] < end; at += 1) {
      if (index.layer[at] === ZERO_LAYER) continue;
      const from = Math.max(lba, index.start[at]);
      const to = Math.min(end, index.start[at] + index.sectors[at]);
      const source = (index.mapped[at] + from - index.start[at]) * SECTOR_BYTES;
      const { bytes } = layers[index.layer[at]];
      into.set(await bytes.read(source, (to - from) * SECTOR_BYTES), (from - lba) * SECTOR_BYTES);
    }
  };
  return { virtualSizeBytes, index, read };
}

export function digestOf(layers: readonly OpenedLayer[], virtualSizeBytes: number) {
  return digestOfDisk(diskOf(layers, virtualSizeBytes));
}
