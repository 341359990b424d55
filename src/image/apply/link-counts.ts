import type { Ext2Filesystem } from '../../../native/ext2fs.ts';
import { ext4Limits } from '../../base/limits.ts';
import type { InodeWriter } from '../ext4/inode-writer.ts';
import { readLinks, writeLinks } from '../ext4/inode.ts';

/** The names of files as the layer changes them, until all of it is known. Not of directories. */
export class LinkCounts {
  readonly #inodes: InodeWriter;
  readonly #links = new Map<number, number>();

  constructor(inodes: InodeWriter) {
    this.#inodes = inodes;
  }

  /** Counts a name more, or less; false when the file would have more than ext4 can tell. */
  add(inode: number, change: 1 | -1): boolean {
    const links = (this.#links.get(inode) ?? readLinks(this.#inodes.read(inode))) + change;
    if (links > ext4Limits.linksMax) return false;
    this.#links.set(inode, links);
    return true;
  }

  /** Writes the counts that changed; the files that have no name left. */
  write(filesystem: Ext2Filesystem): number[] {
    const nameless: number[] = [];
    for (const [inode, links] of this.#links) {
      if (links <= 0) {
        nameless.push(inode);
        continue;
      }
      const bytes = this.#inodes.read(inode);
      if (readLinks(bytes) === links) continue;
      writeLinks(bytes, links);
      filesystem.writeInode(inode, bytes);
    }
    return nameless;
  }
}
