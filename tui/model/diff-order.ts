import type { FileDiff } from '../../src/trace/diff.ts';

/** What a comparison by file is sorted by. */
export const DIFF_ORDERS = ['changed', 'lost', 'new', 'moved', 'kept', 'path'] as const;
export type DiffOrder = (typeof DIFF_ORDERS)[number];

/** Most bytes first, or by path; files that have as many stay in their order. */
export function sortDiffs(files: readonly FileDiff[], order: DiffOrder): FileDiff[] {
  const bytes: Record<Exclude<DiffOrder, 'path'>, (file: FileDiff) => number> = {
    changed: ({ lostBytes, newBytes, movedBytes }) => lostBytes + newBytes + movedBytes,
    lost: ({ lostBytes }) => lostBytes,
    new: ({ newBytes }) => newBytes,
    moved: ({ movedBytes }) => movedBytes,
    kept: ({ keptBytes }) => keptBytes,
  };
  if (order === 'path') {
    return files.toSorted((a, b) => Number(a.path > b.path) - Number(a.path < b.path));
  }
  const of = bytes[order];
  return files.toSorted((a, b) => of(b) - of(a));
}
