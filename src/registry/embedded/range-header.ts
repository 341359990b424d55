import { registryLimits } from '../../base/limits.ts';

/** Bytes [start, end) of a blob. */
export interface ResolvedRange {
  start: number;
  end: number;
}

/**
 * What a Range header asks of `sizeBytes` bytes (RFC 9110, 14.2), in its order. 'all' when there is
 * none or it is one we may ignore (another unit, too many ranges, more bytes than the whole);
 * 'unsatisfiable' when no range lies in the blob.
 */
export function resolveRanges(
  text: string | undefined,
  sizeBytes: number,
): ResolvedRange[] | 'all' | 'unsatisfiable' {
  const specs = /^bytes=(.*)$/.exec(text ?? '')?.[1].split(',') ?? [];
  if (specs.length === 0 || specs.length > registryLimits.requestRangesMax) return 'all';
  const ranges: ResolvedRange[] = [];
  for (const spec of specs) {
    const range = resolveSpec(spec.trim(), sizeBytes);
    if (range === 'invalid') return 'all';
    if (range !== null) ranges.push(range);
  }
  if (ranges.length === 0) return 'unsatisfiable';
  const bytes = ranges.reduce((sum, { start, end }) => sum + end - start, 0);
  return ranges.length > 1 && bytes > sizeBytes ? 'all' : ranges;
}

/** Null when the range begins behind the blob's end. */
function resolveSpec(spec: string, sizeBytes: number): ResolvedRange | null | 'invalid' {
  const match = /^(\d{0,15})-(\d{0,15})$/.exec(spec);
  const [, first = '', last = ''] = match ?? [];
  if (match === null || (first === '' && last === '')) return 'invalid';
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? null : { start: sizeBytes - length, end: sizeBytes };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return 'invalid';
  if (start >= sizeBytes) return null;
  return { start, end: last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes) };
}
