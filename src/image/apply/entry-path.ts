import { entryError } from './errors.ts';

/** The parts of a name that an OCI layer gives a meaning. */
const WHITEOUT_PREFIX = '.wh.';
const OPAQUE_MARK = '.wh..wh..opq';
/** What AUFS kept for itself and old layers still hold. */
const AUFS_PREFIX = '.wh..wh.';

const NAME_BYTES_MAX = 255;

/**
 * The names a path is made of; none for the root directory. A path is taken relative to the root,
 * however it begins. Errors: ERR_APPLY_PATH for `..` and for names ext4 cannot hold.
 */
export function namesOf(path: string): string[] {
  const names = path.split('/').filter((name) => name !== '' && name !== '.');
  for (const name of names) {
    if (name === '..') throw entryError('ERR_APPLY_PATH', path, 'a path must not contain "..".');
    if (name.length > NAME_BYTES_MAX) {
      const problem = `expected names of at most ${NAME_BYTES_MAX} bytes, found ${name.length}.`;
      throw entryError('ERR_APPLY_PATH', path, problem);
    }
  }
  return names;
}

/** What an entry's name asks for. */
export type NameMeaning =
  | { kind: 'entry' }
  | { kind: 'whiteout'; hides: string }
  | { kind: 'opaque' }
  | { kind: 'ignored' };

/**
 * What the names of an entry mean in a layer. Errors: ERR_APPLY_PATH for a whiteout of nothing, of
 * `.` or `..`, and for one that is used as a folder.
 */
export function meaningOf(names: readonly string[], path: string): NameMeaning {
  if (names.some((name) => name.startsWith(AUFS_PREFIX) && name !== OPAQUE_MARK)) {
    return { kind: 'ignored' };
  }
  if (names.slice(0, -1).some((name) => name.startsWith(WHITEOUT_PREFIX))) {
    throw entryError('ERR_APPLY_PATH', path, 'a whiteout is no folder.');
  }
  const name = names.at(-1) ?? '';
  if (name === OPAQUE_MARK) return { kind: 'opaque' };
  if (!name.startsWith(WHITEOUT_PREFIX)) return { kind: 'entry' };
  const hides = name.slice(WHITEOUT_PREFIX.length);
  if (hides === '' || hides === '.' || hides === '..') {
    throw entryError('ERR_APPLY_PATH', path, 'a whiteout needs the name of what it hides.');
  }
  return { kind: 'whiteout', hides };
}
