import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { openLocalBlob } from '../../blob/local-blob.ts';
import { SECTOR_BYTES } from '../../base/limits.ts';
import { FileSink } from '../byte-sink.ts';
import { openStack } from '../stack.ts';
import type { StoredLayer } from './layer-cache.ts';
import { sourceError } from './source.ts';

/** Where overlaybd installs the layer with an empty 64 GiB ext4. */
export const DEFAULT_BASE_LAYER = '/opt/overlaybd/baselayers/ext4_64';

const MEMBER_NAME = 'overlaybd.commit';
const MEMBER_MODE = 0o444;

/**
 * The layer with an empty file system that is put below all others (the original's `--mkfs=false`),
 * as a blob in `folder`: wrapped as the original's convertor wraps it, by Go's tar writer, so that
 * the one that overlaybd ships keeps its digest. Errors: ERR_CONVERT_BASE when the file is no layer of
 * `virtualSizeBytes`, and those of the formats.
 */
export async function readBaseLayer(
  path: string,
  virtualSizeBytes: number,
  folder: string,
): Promise<StoredLayer> {
  const { sizeBytes, hasTarWrapper, dataBytes } = await inspect(path, virtualSizeBytes);
  const wrapped = join(folder, 'base-layer');
  const file = await open(wrapped, 'wx');
  const hash = createHash('sha256');
  try {
    const sink = new FileSink(file);
    const write = async (bytes: Uint8Array) => {
      hash.update(bytes);
      await sink.write(bytes);
    };
    if (!hasTarWrapper) await write(tarHeader(sizeBytes));
    for await (const chunk of createReadStream(path)) await write(chunk as Buffer);
    if (!hasTarWrapper) await write(Buffer.alloc(endBytes(sizeBytes)));
    const digest = `sha256:${hash.digest('hex')}`;
    return { path: wrapped, digest, sizeBytes: sink.bytesWritten, dataBytes, places: [] };
  } finally {
    await file.close();
  }
}

async function inspect(path: string, virtualSizeBytes: number) {
  const blob = await openLocalBlob(path);
  try {
    const { map, layers } = await openStack([blob]);
    if (map.virtualSizeBytes !== virtualSizeBytes) {
      throw sourceError(
        'ERR_CONVERT_BASE',
        `${path}: expected a disk of ${virtualSizeBytes} bytes, found one of ` +
          `${map.virtualSizeBytes}. Choose the size with --vsize.`,
      );
    }
    let sectors = 0;
    for (let at = 0; at < map.index.segmentCount; at += 1) sectors += map.index.sectors[at];
    const { hasTarWrapper } = layers[0].container.facts;
    return { sizeBytes: blob.sizeBytes, hasTarWrapper, dataBytes: sectors * SECTOR_BYTES };
  } finally {
    await blob.close();
  }
}

/** A ustar header as Go's archive/tar writes it: octal digits with zeros in front, no owner names. */
function tarHeader(sizeBytes: number): Buffer {
  const header = Buffer.alloc(512);
  const put = (offset: number, text: string) => header.write(text, offset, 'latin1');
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, '0');
  put(0, MEMBER_NAME);
  put(100, octal(MEMBER_MODE, 7));
  put(108, octal(0, 7));
  put(116, octal(0, 7));
  put(124, octal(sizeBytes, 11));
  put(136, octal(0, 11));
  put(148, ' '.repeat(8));
  put(156, '0');
  put(257, 'ustar\x0000');
  put(329, octal(0, 7));
  put(337, octal(0, 7));
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(148, `${octal(sum, 6)}\0 `);
  return header;
}

/** Padding to whole blocks, and the two that end a tar. */
function endBytes(sizeBytes: number): number {
  return ((512 - (sizeBytes % 512)) % 512) + 1024;
}
