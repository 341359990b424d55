import koffi from 'koffi';
import { errnoError, libc } from './libc.ts';

/** One extended attribute, its name complete (`user.x`). */
export interface ExtendedAttribute {
  name: Buffer;
  value: Buffer;
}

/** The kernel's own bounds (XATTR_LIST_MAX and XATTR_SIZE_MAX). */
const LIST_BYTES_MAX = 65_536;
const VALUE_BYTES_MAX = 65_536;

const llistxattr = libc.func('int64_t llistxattr(const void *path, void *list, size_t size)');
const lgetxattr = libc.func(
  'int64_t lgetxattr(const void *path, const void *name, void *value, size_t size)',
);

/** Calls are synchronous, so one buffer serves all. */
const scratch = Buffer.alloc(Math.max(LIST_BYTES_MAX, VALUE_BYTES_MAX));

/**
 * The extended attributes of the file itself (a symbolic link is not followed) that `wanted`
 * accepts, sorted by name. None where the file system has no such thing.
 * Errors: the errno of the call, naming the file.
 */
export function readExtendedAttributes(
  path: Buffer,
  wanted: (name: string) => boolean,
): ExtendedAttribute[] {
  const pathNul = Buffer.concat([path, Buffer.alloc(1)]);
  const listBytes = Number(llistxattr(pathNul, scratch, LIST_BYTES_MAX));
  if (listBytes === 0 || (listBytes < 0 && koffi.errno() === koffi.os.errno.EOPNOTSUPP)) return [];
  if (listBytes < 0) throw errnoError('llistxattr', path.toString());
  const names = splitAtNul(Buffer.from(scratch.subarray(0, listBytes)));
  return names
    .filter((name) => wanted(name.toString('latin1')))
    .sort(Buffer.compare)
    .map((name) => ({ name, value: readValue(pathNul, path, name) }));
}

function readValue(pathNul: Buffer, path: Buffer, name: Buffer): Buffer {
  const nameNul = Buffer.concat([name, Buffer.alloc(1)]);
  const valueBytes = Number(lgetxattr(pathNul, nameNul, scratch, VALUE_BYTES_MAX));
  if (valueBytes < 0) throw errnoError(`lgetxattr ${name.toString()} of`, path.toString());
  return Buffer.from(scratch.subarray(0, valueBytes));
}

function splitAtNul(list: Buffer): Buffer[] {
  const names: Buffer[] = [];
  let start = 0;
  for (let end = list.indexOf(0); end !== -1; end = list.indexOf(0, start)) {
    names.push(list.subarray(start, end));
    start = end + 1;
  }
  return names;
}
