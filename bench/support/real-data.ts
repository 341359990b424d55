import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Half shared libraries, half text and documents of this machine: what images hold. */
export function mixedData(bytes: number): Buffer {
  return Buffer.concat([
    gather('/usr/lib', /\.so(\.|$)/, bytes / 2),
    gather('/usr/share', /(\.(py|h|txt|html|js|pm|gz)|\/[^./]+)$/, bytes / 2),
  ]);
}

/** The first `bytesMax` bytes of the files whose paths match. */
function gather(folder: string, pattern: RegExp, bytesMax: number): Buffer {
  const parts: Buffer[] = [];
  let left = bytesMax;
  for (const path of walkFiles(folder)) {
    if (left === 0) break;
    if (!pattern.test(path)) continue;
    const part = readFileSync(path).subarray(0, left);
    parts.push(part);
    left -= part.length;
  }
  return Buffer.concat(parts);
}

/** Regular files of a folder and below, links not followed. */
export function* walkFiles(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isFile()) yield path;
    else if (entry.isDirectory()) yield* walkFiles(path);
  }
}
