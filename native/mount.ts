import { closeSync, openSync } from 'node:fs';
import { errnoError, libc } from './libc.ts';

const cMount = libc.func(
  'int mount(const char *source, const char *target, const char *type, ulong flags, const char *data)',
);
const cUnmount = libc.func('int umount2(const char *target, int flags)');
const cSyncfs = libc.func('int syncfs(int fd)');

/** Flags of mount(2), from linux/mount.h. */
export const mountFlags = { readOnly: 1, noSetuid: 2, noDevices: 4, noAccessTime: 1024 } as const;

/** Flags of umount2(2). `force` makes FUSE abort its connection, `detach` unmounts lazily. */
export const unmountFlags = { force: 1, detach: 2, noFollow: 8 } as const;

export interface MountRequest {
  source: string;
  target: string;
  /** e.g. 'ext4' or 'fuse.replaybd'. */
  type: string;
  /** A sum of `mountFlags`. */
  flags: number;
  /** The file system's own options, comma separated. */
  data: string;
}

/**
 * mount(2). Blocks for as long as the file system reads its device, so it must not run on a thread
 * that the device needs for answers. Errors: the errno, naming source and target.
 */
export function mount(request: MountRequest): void {
  const { source, target, type, flags, data } = request;
  if (cMount(source, target, type, flags, data) !== 0) {
    throw errnoError(`mount -t ${type} ${source}`, target);
  }
}

/** umount2(2); blocks as `mount` does. `flags` is a sum of `unmountFlags`. */
export function unmount(target: string, flags = 0): void {
  if (cUnmount(target, flags | unmountFlags.noFollow) !== 0) throw errnoError('umount', target);
}

/**
 * syncfs(2) of the file system that is mounted on `target`: everything written to it so far is on its
 * device, durably, when this returns. Blocks as `mount` does.
 */
export function syncFilesystem(target: string): void {
  const fd = openSync(target, 'r');
  try {
    if (cSyncfs(fd) !== 0) throw errnoError('syncfs', target);
  } finally {
    closeSync(fd);
  }
}
