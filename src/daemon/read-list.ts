import { readFile, stat } from 'node:fs/promises';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { readListLimits } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';

/** One read of a workload, in bytes; neither end need be aligned. */
export interface ListedRead extends ByteRange {
  /** Microseconds the workload computes before it issues this read. */
  thinkUs: number;
}

/**
 * Parses a read list: a read a line as `offset length [think_us]`, in decimal, separated by
 * blanks; `#` begins a comment and blank lines count for nothing. Throws ERR_READ_LIST naming
 * `name` and the line.
 */
export function parseReadList(text: string, name: string): ListedRead[] {
  const reads: ListedRead[] = [];
  let lineNumber = 0;
  let start = 0;
  while (start < text.length) {
    const newline = text.indexOf('\n', start);
    const end = newline === -1 ? text.length : newline;
    lineNumber += 1;
    const place = `${name}:${lineNumber}`;
    if (lineNumber > readListLimits.linesMax) {
      throw listError(place, `at most ${readListLimits.linesMax} lines`, 'another');
    }
    if (end - start > readListLimits.lineLengthMax) {
      const expected = `at most ${readListLimits.lineLengthMax} characters a line`;
      throw listError(place, expected, String(end - start));
    }
    const read = parseLine(text.slice(start, end), place);
    if (read !== null) reads.push(read);
    start = end + 1;
  }
  return reads;
}

/** Reads and parses a file; throws ERR_READ_LIST, also when it is missing or too large. */
export async function loadReadList(path: string): Promise<ListedRead[]> {
  try {
    const { size } = await stat(path);
    if (size > readListLimits.fileBytesMax) {
      throw listError(path, `at most ${readListLimits.fileBytesMax} bytes`, `${size}`);
    }
    return parseReadList(await readFile(path, 'utf8'), path);
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    throw listError(path, 'a readable file', codeOf(error));
  }
}

function parseLine(line: string, place: string): ListedRead | null {
  const [content = ''] = line.split('#', 1);
  const fields = content.split(/[ \t\r]+/).filter((field) => field !== '');
  if (fields.length === 0) return null;
  const [offset, length, think = '0'] = fields;
  if (offset === undefined || length === undefined || fields.length > 3) {
    throw listError(place, 'offset length [think_us]', `'${content.trim()}'`);
  }
  const read = {
    offset: integer(offset, { what: 'offset', min: 0, max: Number.MAX_SAFE_INTEGER }, place),
    length: integer(length, { what: 'length', min: 1, max: readListLimits.readBytesMax }, place),
    thinkUs: integer(think, { what: 'think_us', min: 0, max: readListLimits.thinkUsMax }, place),
  };
  if (!Number.isSafeInteger(read.offset + read.length)) {
    throw listError(place, 'a range below 2^53', `'${content.trim()}'`);
  }
  return read;
}

interface Bounds {
  what: string;
  min: number;
  max: number;
}

function integer(field: string, { what, min, max }: Bounds, place: string): number {
  const value = /^[0-9]{1,16}$/.test(field) ? Number(field) : Number.NaN;
  if (!(value >= min && value <= max)) {
    throw listError(place, `${what} from ${min} to ${max} in decimal`, `'${field}'`);
  }
  return value;
}

function listError(place: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_READ_LIST',
    `${place}: read list: expected ${expected}, found ${found}.`,
    { errno: 'EINVAL' },
  );
}
