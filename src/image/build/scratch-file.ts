import { closeSync, openSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

/** A sparse file without a name: whatever happens to the process, nothing is left behind. */
export interface ScratchFile extends Disposable {
  fd: number;
  /** Opens the file in this process and its children, as long as it is open here. */
  path: string;
}

/** Makes one on the file system of `folder`. */
export function openScratchFile(folder: string, name: string): ScratchFile {
  const created = join(folder, name);
  const fd = openSync(created, 'wx+', 0o600);
  unlinkSync(created);
  return { fd, path: `/proc/${process.pid}/fd/${fd}`, [Symbol.dispose]: () => closeSync(fd) };
}
