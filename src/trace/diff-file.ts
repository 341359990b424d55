import type { Stretch } from './diff-lists.ts';
import { diffTraces, type DiffKind, type FileFinder } from './diff.ts';
import type { Trace } from './trace.ts';

/** A part of a file that one of two traces or both have. */
export interface FilePart {
  readonly kind: DiffKind;
  readonly digest: string;
  readonly lba: number;
  readonly sectors: number;
  /** In bytes; an estimate where the file is compressed. */
  readonly fileOffset: number;
  /** On the warm axis; null where a trace does not have it. */
  readonly firstUs: number | null;
  readonly secondUs: number | null;
}

/** What two traces have of one file, in the order of the file. Errors: those of diffTraces. */
export function diffFile(
  first: Trace,
  second: Trace,
  { path, filesOf }: { path: string; filesOf: FileFinder },
): FilePart[] {
  const parts = new Map<string, FilePart>();
  const onPart = (kind: DiffKind, { digest, lba, sectors, firstUs, secondUs }: Stretch): void => {
    for (const piece of filesOf(digest, lba, sectors)) {
      if (piece.path !== path) continue;
      const { fileOffset } = piece;
      // What has moved was kept before.
      parts.set(`${digest} ${piece.lba}`, {
        ...{ kind, digest, lba: piece.lba, sectors: piece.sectors, fileOffset },
        ...{ firstUs, secondUs },
      });
    }
  };
  diffTraces(first, second, { listMax: 0, onPart });
  return [...parts.values()].sort((a, b) => a.fileOffset - b.fileOffset || a.lba - b.lba);
}
