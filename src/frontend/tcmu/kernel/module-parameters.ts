import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { codeOf, ReplaybdError } from '../../../base/errors.ts';
import { SYSTEM_ROOT } from './configfs.ts';

/** While true, the kernel refuses (EAGAIN) what it would have to ask a handler about. */
export function blockNetlink(isBlocked: boolean, root: string = SYSTEM_ROOT): void {
  write(root, 'block_netlink', isBlocked ? '1' : '0');
}

/** Fails (EINTR) what waits for a handler's answer. */
export function resetNetlink(root: string = SYSTEM_ROOT): void {
  write(root, 'reset_netlink', '1');
}

/**
 * A parameter of target_core_user, to be written; the caller closes it. Errors: ERR_TCMU_MODULE when
 * the module is not loaded, ERR_TCMU_PERMISSION when this process may not.
 */
export function openParameter(root: string, parameter: string): number {
  const path = join(root, 'module', 'target_core_user', 'parameters', parameter);
  try {
    // One of them can only be written, which holds for root too.
    return openSync(path, constants.O_WRONLY);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      throw new ReplaybdError(
        'ERR_TCMU_MODULE',
        `${path}: not found: target_core_user is not loaded. As root: modprobe target_core_user`,
        { cause: error, errno: 'ENOENT' },
      );
    }
    throw new ReplaybdError(
      'ERR_TCMU_PERMISSION',
      `${path}: may not be written (${codeOf(error)}). Run as root, with /sys writable.`,
      { cause: error, errno: 'EACCES' },
    );
  }
}

function write(root: string, parameter: string, text: string): void {
  const fd = openParameter(root, parameter);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}
