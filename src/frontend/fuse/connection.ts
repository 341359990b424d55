import { existsSync, mkdirSync, realpathSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { mount, unmount, unmountFlags } from '../../../native/mount.ts';
import { isInError } from '../../../native/poll.ts';
import { readMountTable } from './mount-table.ts';

const CONTROL_DIRECTORY = '/sys/fs/fuse/connections';

/**
 * The kernel's side of a FUSE mount. It lives as long as the file is mounted anywhere: a copy of the
 * mount in another namespace (a container, `ip netns exec`) keeps it after we have unmounted ours.
 */
export class FuseConnection {
  readonly #fd: number;
  readonly #number: string | null;

  /** Of the file that was just mounted at `path` with this descriptor of /dev/fuse. */
  constructor(fd: number, path: string) {
    this.#fd = fd;
    // The file itself is not looked at: that would wait for its server.
    const mounted = join(realpathSync(dirname(path)), basename(path));
    const entry = readMountTable().findLast(({ target }) => target === mounted);
    // The device number's minor part is what the connection is called.
    this.#number = entry?.deviceNumber.split(':')[1] ?? null;
  }

  /** The kernel has ended it: whoever reads from it gets an error. */
  get isOver(): boolean {
    return isInError(this.#fd);
  }

  /**
   * Ends it wherever it is mounted, by the kernel's control files. Where /sys has none, they are
   * mounted for a moment on `directory`, which must not exist. Does not block. Errors: an errno.
   */
  abort(directory: string): void {
    // Afterwards its number may belong to somebody else's connection.
    if (this.isOver || this.#number === null) return;
    const name = `${this.#number}/abort`;
    const known = `${CONTROL_DIRECTORY}/${name}`;
    if (existsSync(known)) return writeFileSync(known, '1');
    mkdirSync(directory);
    try {
      mount({ source: 'none', target: directory, type: 'fusectl', flags: 0, data: '' });
      try {
        writeFileSync(`${directory}/${name}`, '1');
      } finally {
        unmount(directory, unmountFlags.detach);
      }
    } finally {
      rmdirSync(directory);
    }
  }
}
