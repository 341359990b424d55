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
      for (const { node, kind, offset, length, fileOffset } of parts) {
        if (node === null || kind !== 'file') continue;
        const [path = Buffer.alloc(0)] = map.node(node).paths;
        pieces.push({
          path: `/${path.toString()}`,
          lba: offset / SECTOR_BYTES,
          sectors: length / SECTOR_BYTES,
          fileOffset,
        });
      }
    }
    return pieces;
  };
}

/** Finds files in the first of some images that serves the sectors from the layer asked for. */
export function firstFinder(finders: readonly FileFinder[]): FileFinder {
  return (digest, lba, sectors) => {
    for (const finder of finders) {
      const pieces = finder(digest, lba, sectors);
      if (pieces.length > 0) return pieces;
    }
    return [];
  };
}
