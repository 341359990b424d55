import { closeSync, constants, openSync, writeSync } from 'node:fs';
import { codeOf, ReplaybdError } from '../../../base/errors.ts';

const FOLDER = '/sys/module/target_core_user/parameters';

/** While true, the kernel refuses (EAGAIN) what it would have to ask a handler about. */
export function blockNetlink(isBlocked: boolean): void {
  write('block_netlink', isBlocked ? '1' : '0');
}

/** Fails (EINTR) what waits for a handler's answer. */
export function resetNetlink(): void {
  write('reset_netlink', '1');
}

function write(parameter: string, text: string): void {
  try {
    // One of them can only be written, which holds for root too.
    const fd = openSync(`${FOLDER}/${parameter}`, constants.O_WRONLY);
    try {
      writeSync(fd, text);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new ReplaybdError(
      'ERR_TCMU_MODULE',
      `${FOLDER}/${parameter}: cannot be written (${codeOf(error)}). As root: modprobe target_core_user`,
      { cause: error, errno: 'ENOENT' },
    );
  }
}
