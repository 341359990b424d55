/**
 * What a Range header asks of `sizeBytes` bytes (RFC 9110, 14.2), as [start, end). 'all' when there
 * is none or it is one we may ignore (several ranges, another unit); 'unsatisfiable' otherwise.
 */
export function resolveRange(
  text: string | undefined,
  sizeBytes: number,
): { start: number; end: number } | 'all' | 'unsatisfiable' {
  const match = /^bytes=(\d{0,15})-(\d{0,15})$/.exec(text ?? '');
  if (match === null) return 'all';
  const [, first = '', last = ''] = match;
  if (first === '' && last === '') return 'all';
  if (first === '') {
    const length = Math.min(Number(last), sizeBytes);
    return length === 0 ? 'unsatisfiable' : { start: sizeBytes - length, end: sizeBytes };
  }
  const start = Number(first);
  if (last !== '' && Number(last) < start) return 'all';
  if (start >= sizeBytes) return 'unsatisfiable';
  return { start, end: last === '' ? sizeBytes : Math.min(Number(last) + 1, sizeBytes) };
}
