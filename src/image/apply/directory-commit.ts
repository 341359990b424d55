import { EXT4_BLOCK_BYTES, type Ext2Filesystem } from '../../../native/ext2fs.ts';
import { codeOf, messageOf } from '../../base/errors.ts';
import { directoryBlockCount, FILE_TYPE } from '../ext4/directory-blocks.ts';
import { addSubdirectories, type InodeWriter } from '../ext4/inode-writer.ts';
import { writeAttributes, writeLinks } from '../ext4/inode.ts';
import { editDirectory, toRecord } from './directory-edit.ts';
import type { Directory } from './directory.ts';
import { entryError } from './errors.ts';

/** Writes a directory that is not on disk yet. Errors: ERR_EXT4_*, ERR_APPLY_XATTR. */
export function addDirectory(inodes: InodeWriter, directory: Directory): void {
  const { inode, parent, attributes } = directory;
  if (attributes === null) throw new Error('a new directory has no attributes');
  const entries = [...directory.entries].map(toRecord);
  const count = directoryBlockCount(entries.map(({ name }) => name));
  const extents = inodes.allocateExtents(count);
  const body = { kind: 'extents', sizeBytes: count * EXT4_BLOCK_BYTES, extents } as const;
  try {
    inodes.add(inode, attributes, linksOf(directory), body, attributes.extended);
  } catch (error) {
    throw attributes.extended.length > 0 ? attributesError(pathOf(directory), error) : error;
  }
  inodes.addDirectoryBlocks(inode, parent.inode, entries, extents);
}

/** Makes a directory on disk what it became. Errors: ERR_EXT4_*, ERR_APPLY_IMAGE, ERR_APPLY_XATTR. */
export function updateDirectory(
  filesystem: Ext2Filesystem,
  inodes: InodeWriter,
  directory: Directory,
): void {
  const { inode, attributes, isChanged } = directory;
  if (isChanged) editDirectory(filesystem, inodes, directory);
  if (!isChanged && attributes === null) return;
  const bytes = inodes.read(inode);
  if (isChanged) writeLinks(bytes, linksOf(directory));
  if (attributes !== null) writeAttributes(bytes, attributes);
  filesystem.writeInode(inode, bytes);
  if (attributes === null) return;
  try {
    filesystem.setAttributes(inode, attributes.extended);
  } catch (error) {
    throw attributesError(pathOf(directory), error);
  }
}

/** What was thrown while an entry's extended attributes were written, with the entry's name. */
export function attributesError(path: string, error: unknown): unknown {
  if (codeOf(error) !== 'ERR_EXT4_LIBRARY') return error;
  const problem = `its extended attributes do not fit into ext4 (${messageOf(error)}).`;
  return entryError('ERR_APPLY_XATTR', path, problem, { cause: error });
}

function linksOf({ entries }: Directory): number {
  let subdirectories = 0;
  for (const { fileType } of entries.values()) {
    if (fileType === FILE_TYPE.directory) subdirectories += 1;
  }
  return addSubdirectories(2, subdirectories);
}

/** For messages. */
function pathOf(directory: Directory): string {
  const names: string[] = [];
  for (let inner = directory; inner.parent !== inner; inner = inner.parent) {
    for (const [name, entry] of inner.parent.entries) {
      if (entry.inode === inner.inode) names.unshift(name);
    }
  }
  return `/${names.join('/')}`;
}
