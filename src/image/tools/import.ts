import { dirname } from 'node:path';
import { nextDataRange } from '../../../native/sparse-file.ts';
import { ReplaybdError } from '../../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES } from '../../base/limits.ts';
import { openScratchFile } from '../build/scratch-file.ts';
import { openFileBytes } from '../file-bytes.ts';
import { extentsOf } from '../lsmt/compact.ts';
import { allocateSegments, type Segments } from '../lsmt/overlay.ts';
import type { LsmtWriterOptions } from '../lsmt/writer.ts';
import { writeLayerOutput, type LayerOutput, type LayerOutputOptions } from './layer-output.ts';
import { qcow2ToRaw } from './qemu-img.ts';
import { withoutZeroBlocks } from './zero-blocks.ts';

export type DiskFormat = 'raw' | 'qcow2';

export type ImportOptions = LayerOutputOptions &
  Pick<LsmtWriterOptions, 'uuid' | 'userTag'> & {
    /** Default: qcow2 where the file begins as one does. */
    format?: DiskFormat | undefined;
  };

const QCOW2_MAGIC = 'QFI\u{fb}';

/**
 * Makes a bottom layer of a disk image. What the image does not store, and blocks of zeros, the
 * layer does not have. Errors: ERR_IMPORT_SIZE, ERR_FILE_READ, those of qcow2ToRaw and of
 * writeLayerOutput.
 */
export async function importImage(source: string, options: ImportOptions): Promise<LayerOutput> {
  const format = options.format ?? (await detectFormat(source));
  if (format === 'raw') return await importRaw(source, options);
  using raw = openScratchFile(dirname(options.path), `.replaybd-import-${process.pid}`);
  await qcow2ToRaw(source, raw.path, options);
  return await importRaw(raw.path, options);
}

async function detectFormat(path: string): Promise<DiskFormat> {
  const file = await openFileBytes(path);
  try {
    if (file.sizeBytes < QCOW2_MAGIC.length) return 'raw';
    const first = Buffer.from(await file.read(0, QCOW2_MAGIC.length));
    return first.toString('latin1') === QCOW2_MAGIC ? 'qcow2' : 'raw';
  } finally {
    await file.close();
  }
}

async function importRaw(path: string, options: ImportOptions): Promise<LayerOutput> {
  const bytes = await openFileBytes(path);
  try {
    const virtualSizeBytes = bytes.sizeBytes;
    if (virtualSizeBytes === 0 || virtualSizeBytes % SECTOR_BYTES !== 0) {
      throw new ReplaybdError(
        'ERR_IMPORT_SIZE',
        `${path}: expected a disk of whole ${SECTOR_BYTES}-byte sectors, found ` +
          `${virtualSizeBytes} bytes. Extend it with truncate.`,
      );
    }
    const { uuid = null, userTag = '' } = options;
    const layer = { virtualSizeBytes, uuid, parentUuid: null, userTag };
    const stored = storedSegments(bytes.fd, virtualSizeBytes, path);
    const extents = withoutZeroBlocks(extentsOf(stored, [bytes]), 'holes');
    return await writeLayerOutput(options, layer, extents);
  } finally {
    await bytes.close();
  }
}

/** What the file system stores of a disk, one to one. */
function storedSegments(fd: number, sizeBytes: number, name: string): Segments {
  const pieces: { lba: number; sectors: number }[] = [];
  for (let position = 0; position < sizeBytes;) {
    const range = nextDataRange(fd, position, name);
    if (range === null) break;
    position = range.offset + range.length;
    const first = Math.floor(range.offset / SECTOR_BYTES);
    const end = Math.ceil(position / SECTOR_BYTES);
    const stepMax = lsmtLimits.segmentSectorsMax;
    for (let lba = first; lba < end; lba += stepMax) {
      pieces.push({ lba, sectors: Math.min(stepMax, end - lba) });
    }
  }
  const segments = allocateSegments(pieces.length);
  for (const { lba, sectors } of pieces) {
    segments.start[segments.count] = lba;
    segments.sectors[segments.count] = sectors;
    segments.mapped[segments.count] = lba;
    segments.count += 1;
  }
  return segments;
}
