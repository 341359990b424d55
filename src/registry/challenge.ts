/** One challenge of a WWW-Authenticate header; parameter names and the scheme in lower case. */
export interface Challenge {
  scheme: string;
  parameters: ReadonlyMap<string, string>;
}

/** Longer headers are refused unread. */
const HEADER_LENGTH_MAX = 8192;
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const QUOTED = /"((?:[^"\\]|\\.)*)"/y;
const SPACE = /[ \t]*/y;
const COMMAS = /[ \t]*(?:,[ \t]*)*/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;

/**
 * Parses a WWW-Authenticate header (RFC 9110, 11.6.1): several challenges, quoted values that hold
 * commas, unquoted values. What cannot be parsed ends the list; what came before it counts.
 */
export function parseChallenges(text: string): Challenge[] {
  if (text.length > HEADER_LENGTH_MAX) return [];
  const challenges: Challenge[] = [];
  let parameters: Map<string, string> | null = null;
  let position = skip(COMMAS, text, 0);
  while (position < text.length) {
    const word = match(TOKEN, text, position);
    if (word === null) break;
    position += word[0].length;
    const equals = skip(SPACE, text, position);
    const value: { text: string; end: number } | null =
      parameters !== null && text[equals] === '=' ? readValue(text, equals + 1) : null;
    if (value !== null && parameters !== null) {
      const name = word[0].toLowerCase();
      if (!parameters.has(name)) parameters.set(name, value.text);
      position = skip(COMMAS, text, value.end);
      continue;
    }
    if (text[equals] === '=') break;
    parameters = new Map();
    challenges.push({ scheme: word[0].toLowerCase(), parameters });
    position = skip(COMMAS, text, skipToken68(text, equals));
  }
  return challenges;
}

/** `Scheme abc123==`: a scheme may carry one opaque word instead of parameters. */
function skipToken68(text: string, position: number): number {
  const opaque = match(TOKEN68, text, position);
  if (opaque === null || opaque[0] === '') return position;
  const next = skip(SPACE, text, position + opaque[0].length);
  // A bare word followed by a comma may also be the next scheme; only `=` or an end tells.
  return opaque[0].endsWith('=') || next === text.length ? position + opaque[0].length : position;
}

function readValue(text: string, position: number): { text: string; end: number } | null {
  const start = skip(SPACE, text, position);
  const quoted = match(QUOTED, text, start);
  if (quoted !== null) {
    const unescaped = (quoted[1] ?? '').replace(/\\(.)/g, '$1');
    return { text: unescaped, end: start + quoted[0].length };
  }
  const bare = match(/[^\s,"]+/y, text, start);
  return bare === null ? null : { text: bare[0], end: start + bare[0].length };
}

function skip(pattern: RegExp, text: string, position: number): number {
  return position + (match(pattern, text, position)?.[0].length ?? 0);
}

function match(pattern: RegExp, text: string, position: number): RegExpExecArray | null {
  pattern.lastIndex = position;
  return pattern.exec(text);
}
