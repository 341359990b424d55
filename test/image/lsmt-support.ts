import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { zstdDecompressSync } from 'node:zlib';
import type { ByteSink } from '../../src/image/byte-sink.ts';
import { exportSource } from '../../src/image/export-source.ts';
import { digestOfDisk } from '../../src/image/export.ts';
import type { LayerBytes } from '../../src/image/layer-bytes.ts';
import type { LsmtEntryColumns } from '../../src/image/lsmt/index-entries.ts';
import { mergeLayers } from '../../src/image/lsmt/merged-index.ts';

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
  entries: LsmtEntryColumns;
  bytes: LayerBytes;
}

/** SHA-256 of the disk that layers, bottom first, make. */
export function digestOf(layers: readonly OpenedLayer[], virtualSizeBytes: number) {
  const entries = layers.map((layer) => layer.entries);
  const bytes = layers.map((layer) => layer.bytes);
  const index = mergeLayers(entries, virtualSizeBytes);
  return digestOfDisk(exportSource(bytes, index, virtualSizeBytes));
}
