import { ReplaybdError } from '../../base/errors.ts';
import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { startFuse } from './fuse-frontend.ts';
import { fusePermitted } from './permitted.ts';
import { FuseThreads } from './threads.ts';

const WORKERS = 2;

/**
 * A FUSE front end whose threads start up while the image is still being opened. Throws
 * ERR_FUSE_NOT_PERMITTED.
 */
export function prepare(request: FrontendRequest): PreparedFrontend {
  const { parameters, directory, clock, log, onFailed } = request;
  const { loop = true, mount } = parameters;
  const permission = fusePermitted(loop);
  if (!permission.ok) {
    throw new ReplaybdError(
      'ERR_FUSE_NOT_PERMITTED',
      `FUSE cannot be used here: ${permission.reason}. ` +
        'Use the NBD front end, which needs no privileges.',
      { errno: 'EINVAL' },
    );
  }
  const threads = new FuseThreads(WORKERS);
  return {
    readerThreads: WORKERS,
    start: (device) =>
      startFuse(device, {
        ...{ directory, workers: WORKERS, threads, loop, clock, log, onFailed },
        ...(mount === undefined ? {} : { mount }),
      }),
    discard: () => threads.close(),
  };
}
