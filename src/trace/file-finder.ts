import { SECTOR_BYTES } from '../base/limits.ts';
import type { FileFinder, FilePiece } from './diff.ts';
import type { FileMap } from './file-map.ts';
import type { TraceTarget } from './served-by.ts';

/**
 * Finds files by what an image serves: of sectors that it serves from another layer than the one asked
 * for, it says nothing.
 */
export function fileFinder(map: FileMap, { image, stack }: TraceTarget): FileFinder {
  return (digest, lba, sectors) => {
    const pieces: FilePiece[] = [];
    for (const piece of stack.locate(lba, sectors)) {
      if (image.layers[piece.layer].digest !== digest) continue;
      const parts = map.parts(piece.lba * SECTOR_BYTES, piece.sectors * SECTOR_BYTES);
      for (const { node, kind, length } of parts) {
        if (node === null || kind !== 'file') continue;
        const [path = Buffer.alloc(0)] = map.node(node).paths;
        pieces.push({ path: `/${path.toString()}`, sectors: length / SECTOR_BYTES });
      }
    }
    return pieces;
  };
}
