/** One member of a test's tar; what is left out is a usual value. */
export interface TestEntry {
  path: string;
  /** The header's type flag; default '0'. */
  flag?: string;
  content?: Buffer | string;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  linkTarget?: string;
  major?: number;
  minor?: number;
  /** Records of a pax header in front, in order. */
  pax?: [string, string | Buffer][];
  /** States another size than the content's. */
  size?: number;
  /** Changes the header before its checksum is made. */
  change?: (header: Buffer) => void;
  magic?: string;
}

const BLOCK = 512;

/** A tar of these members, with its end. */
export function tarOf(entries: readonly TestEntry[]): Buffer {
  return Buffer.concat([...entries.map(member), Buffer.alloc(2 * BLOCK)]);
}

/** Headers and content of one member. Names must fit into the header, or come by pax. */
export function member(entry: TestEntry): Buffer {
  const parts: Buffer[] = [];
  if (entry.pax !== undefined) {
    const records = Buffer.concat(entry.pax.map(([key, value]) => paxRecord(key, value)));
    parts.push(member({ path: 'pax', flag: 'x', content: records }));
  }
  const content = Buffer.from(entry.content ?? '');
  parts.push(header(entry, content.length), content, padding(content.length));
  return Buffer.concat(parts);
}

export function padding(bytes: number): Buffer {
  return Buffer.alloc((BLOCK - (bytes % BLOCK)) % BLOCK);
}

/** "<length> <key>=<value>\n", where the length counts itself. */
export function paxRecord(key: string, value: string | Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), Buffer.from(value), Buffer.from('\n')]);
  let length = rest.length + 1;
  while (String(length).length + rest.length !== length) length += 1;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

function header(entry: TestEntry, contentBytes: number): Buffer {
  const bytes = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, digits: number) =>
    bytes.write(`${value.toString(8).padStart(digits, '0')}\0`, at, 'latin1');
  bytes.write(entry.path.slice(0, 100), 0, 'latin1');
  octal(entry.mode ?? 0o644, 100, 7);
  octal(entry.uid ?? 0, 108, 7);
  octal(entry.gid ?? 0, 116, 7);
  octal(entry.size ?? contentBytes, 124, 11);
  octal(entry.mtime ?? 1_700_000_000, 136, 11);
  bytes.write(entry.flag ?? '0', 156, 'latin1');
  bytes.write((entry.linkTarget ?? '').slice(0, 100), 157, 'latin1');
  bytes.write(entry.magic ?? 'ustar\u000000', 257, 'latin1');
  octal(entry.major ?? 0, 329, 7);
  octal(entry.minor ?? 0, 337, 7);
  entry.change?.(bytes);
  return seal(bytes);
}

/** Gives a header its checksum. */
export function seal(bytes: Buffer): Buffer {
  bytes.fill(' ', 148, 156);
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1');
  return bytes;
}
