/** What a Content-Range header says; `total` is null when the server wrote `*`. */
export type ContentRange =
  | { kind: 'range'; start: number; end: number; total: number | null }
  | { kind: 'unsatisfied'; total: number };

/** Parses a Content-Range header of bytes, satisfied or not (RFC 9110, 14.4); null otherwise. */
export function parseContentRange(value: string): ContentRange | null {
  const match = /^bytes (?:(\d{1,16})-(\d{1,16})|\*)\/(?:(\d{1,16})|\*)$/i.exec(value.trim());
  if (match === null) return null;
  const [, start, end, total] = match.map((text) => (text === undefined ? null : Number(text)));
  if (![start, end, total].every((number) => number === null || Number.isSafeInteger(number))) {
    return null;
  }
  if (start === null || start === undefined || end === null || end === undefined) {
    return total === null || total === undefined ? null : { kind: 'unsatisfied', total };
  }
  if (end < start || (total !== null && total !== undefined && end >= total)) return null;
  return { kind: 'range', start, end, total: total ?? null };
}

/**
 * Milliseconds a Retry-After header asks to wait: seconds or an HTTP date, at most `capMs`; 0 when
 * it is absent, malformed or past.
 */
export function parseRetryAfter(value: string | null, nowWallMs: number, capMs: number): number {
  if (value === null) return 0;
  const text = value.trim();
  const waitMs = /^\d{1,10}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowWallMs;
  return Number.isFinite(waitMs) ? Math.min(Math.max(waitMs, 0), capMs) : 0;
}

/** One header as text; repeated headers are joined as HTTP allows. Null when absent. */
export function header(
  headers: Readonly<Record<string, string | string[] | undefined>>,
  name: string,
): string | null {
  const value = headers[name];
  if (value === undefined) return null;
  return Array.isArray(value) ? value.join(', ') : value;
}

/** Content-Length as a number; null when absent or malformed. */
export function contentLength(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): number | null {
  const value = header(headers, 'content-length');
  return value !== null && /^\d{1,15}$/.test(value) ? Number(value) : null;
}

/** `Link: <url>; rel="next"` (RFC 8288), only within the registry's own origin. */
export function nextPage(url: URL, link: string | null): URL | null {
  const match = /<([^>]{1,2048})>\s*;\s*rel="?next"?/.exec(link ?? '');
  const next = match === null ? null : URL.parse(match[1] ?? '', url.href);
  return next?.origin === url.origin ? next : null;
}
