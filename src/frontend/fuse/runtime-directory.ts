import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { codeOf, ReplaybdError } from '../../base/errors.ts';

/** The name of a device's file in its directory. */
export const DEVICE_FILE = 'disk';

/** Where devices appear unless the user says otherwise: one private directory each below it. */
export function defaultRuntimeDirectory(): string {
  if (process.geteuid?.() === 0) return '/run/replaybd';
  return join(process.env.XDG_RUNTIME_DIR ?? tmpdir(), 'replaybd');
}

/**
 * Makes `<root>/<pid>-<device id>` with an empty file to mount on, and returns the directory. Only
 * its owner may enter. Throws ERR_FUSE_BUSY when the device has one already.
 */
export function makeDeviceDirectory(root: string, deviceId: string): string {
  const name = `${process.pid}-${deviceId.replace(/[^A-Za-z0-9._-]/g, '_')}`;
  const directory = join(root, name);
  mkdirSync(root, { recursive: true, mode: 0o700 });
  try {
    mkdirSync(directory, { mode: 0o700 });
  } catch (error) {
    if (codeOf(error) !== 'EEXIST') throw error;
    throw new ReplaybdError(
      'ERR_FUSE_BUSY',
      `${directory}: exists. Device ${deviceId} is served already, or a killed run left it ` +
        'behind: recover the runtime directory, or remove it.',
      { errno: 'EBUSY', cause: error },
    );
  }
  writeFileSync(join(directory, DEVICE_FILE), '', { mode: 0o600 });
  return directory;
}
