import { closeSync } from 'node:fs';
import { ReplaybdError } from '../../../base/errors.ts';
import { tryLockFile } from '../../../../native/file-space.ts';
import { SYSTEM_ROOT } from './configfs.ts';
import { openParameter } from './module-parameters.ts';

/**
 * Which process of this machine answers the kernel for TCMU devices: all of them hear every event, and
 * one that starts fails what waits for another's answer. The lock is on a file of the kernel that only
 * root can open, so that nothing is left behind, and nobody else can take it.
 */
export class HandlerLock {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /**
   * Ends with the process, or with `release`. Errors: ERR_TCMU_LOCKED when another process has it,
   * and those of openParameter.
   */
  static take(root: string = SYSTEM_ROOT): HandlerLock {
    const fd = openParameter(root, 'reset_netlink');
    try {
      if (tryLockFile(fd, 'the lock of TCMU handlers')) return new HandlerLock(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
    throw new ReplaybdError(
      'ERR_TCMU_LOCKED',
      'another replaybd daemon serves the TCMU devices of this machine. End one of the two.',
      { errno: 'EBUSY' },
    );
  }

  release(): void {
    closeSync(this.#fd);
  }
}
