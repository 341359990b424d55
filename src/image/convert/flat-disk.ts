import { writeSync } from 'node:fs';
import { truncate } from 'node:fs/promises';
import { punchHole } from '../../../native/file-space.ts';
import { openLocalBlob } from '../../blob/local-blob.ts';
import type { Blob } from '../../blob/blob.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import type { ByteRange } from '../../base/range.ts';
import { changedExtents, readDisk, type DiskFile } from '../build/changed-extents.ts';
import { openScratchFile, type ScratchFile } from '../build/scratch-file.ts';
import { createExt4 } from '../ext4/build.ts';
import { extentsOf } from '../lsmt/compact.ts';
import { overlayLayers } from '../lsmt/overlay.ts';
import type { LsmtExtent } from '../lsmt/writer.ts';
import { openIndexedStack } from '../stack.ts';

/** What a layer changes, by place; its data is on the disk it was found on. */
export interface Change {
  lba: number;
  sectors: number;
  zeroed: boolean;
}

/**
 * A chain of layers as one file system, flat in a sparse file, in two states: the one that the next
 * layer is applied to, and the one that the layers committed so far make. While a layer is
 * committed from the second, the next can already change the first.
 */
export class FlatDisk implements Disposable {
  readonly #sizeBytes: number;
  readonly #current: ScratchFile;
  readonly #committed: ScratchFile;
  /** Where the last commit's data is. */
  #source: ScratchFile;

  private constructor(sizeBytes: number, current: ScratchFile, committed: ScratchFile) {
    this.#sizeBytes = sizeBytes;
    this.#current = current;
    this.#committed = committed;
    this.#source = committed;
  }

  /** Two disks of zeros on the file system of `folder`; they have no names. */
  static async create(folder: string, sizeBytes: number): Promise<FlatDisk> {
    const current = openScratchFile(folder, 'current.ext4');
    const committed = openScratchFile(folder, 'committed.ext4');
    await Promise.all([current, committed].map(({ path }) => truncate(path, sizeBytes)));
    return new FlatDisk(sizeBytes, current, committed);
  }

  /** What a layer is applied to. */
  get path(): string {
    return this.#current.path;
  }

  /** Makes an empty file system, as part of the first layer's changes. Errors: those of createExt4. */
  async format(signal: AbortSignal): Promise<void> {
    await createExt4(this.#current.path, { virtualSizeBytes: this.#sizeBytes, signal });
  }

  /** Puts finished layers on both disks. Errors: those of the formats. */
  async replay(paths: readonly string[], signal: AbortSignal): Promise<void> {
    const blobs: Blob[] = [];
    try {
      for (const path of paths) blobs.push(await openLocalBlob(path));
      const { layers } = await openIndexedStack(blobs);
      const segments = overlayLayers(
        layers.map(({ lsmt }) => lsmt),
        this.#sizeBytes / SECTOR_BYTES,
      );
      const bytes = layers.map(({ container }) => container.bytes);
      for await (const extent of extentsOf(segments, bytes)) {
        signal.throwIfAborted();
        store(this.#current, extent);
        store(this.#committed, extent);
      }
    } finally {
      await Promise.all(blobs.map((blob) => blob.close()));
    }
  }

  /**
   * What changed since the last commit, in LBA order, and is committed now. `dirty` says where to
   * look: whole blocks, in order; null: everywhere. After the last commit, nothing may be applied.
   */
  async commit(
    dirty: readonly ByteRange[] | null,
    isLast: boolean,
    signal: AbortSignal,
  ): Promise<Change[]> {
    const changes: Change[] = [];
    const [current, committed, within] = [this.#current, this.#committed, dirty ?? undefined];
    const found = changedExtents(current, committed, this.#sizeBytes, signal, within);
    for await (const extent of found) {
      const { lba, sectors, zeroed = false } = extent;
      changes.push({ lba, sectors, zeroed });
      if (!isLast) store(committed, extent);
    }
    if (isLast) this.#source = current;
    return changes;
  }

  /** Changes with their data, as committed. Data is only valid until the next is asked for. */
  async *committedExtents(
    changes: readonly Change[],
    onBytes: (bytes: number) => void,
  ): AsyncGenerator<LsmtExtent> {
    let buffer = Buffer.alloc(0);
    for (const { lba, sectors, zeroed } of changes) {
      const length = sectors * SECTOR_BYTES;
      if (zeroed) {
        yield { lba, sectors, zeroed };
        continue;
      }
      if (buffer.length < length) buffer = Buffer.alloc(length);
      const data = buffer.subarray(0, length);
      readDisk(this.#source, data, lba * SECTOR_BYTES, length);
      onBytes(length);
      yield { lba, sectors, data };
    }
  }

  [Symbol.dispose](): void {
    this.#current[Symbol.dispose]();
    this.#committed[Symbol.dispose]();
  }
}

function store(disk: DiskFile, extent: LsmtExtent): void {
  const offset = extent.lba * SECTOR_BYTES;
  if (extent.zeroed) {
    punchHole(disk.fd, offset, extent.sectors * SECTOR_BYTES);
    return;
  }
  const { data } = extent;
  for (let done = 0; done < data.length;) {
    done += writeSync(disk.fd, data, done, data.length - done, offset + done);
  }
}
