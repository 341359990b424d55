import { ReplaybdError } from '../../base/errors.ts';
import type { FrontendParameters, FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { startFuse } from './fuse-frontend.ts';
import { fusePermitted } from './permitted.ts';
import { FuseThreads } from './threads.ts';

const WORKERS = 2;

/** Throws ERR_FUSE_NOT_PERMITTED. */
export function check({ loop = true }: FrontendParameters): void {
  const permission = fusePermitted(loop);
  if (permission.ok) return;
  throw new ReplaybdError(
    'ERR_FUSE_NOT_PERMITTED',
    `FUSE cannot be used here: ${permission.reason}. ` +
      'Use --frontend nbd, which needs no privileges.',
    { errno: 'EINVAL' },
  );
}

/** A FUSE front end whose threads start up while the image is still being opened. */
export function prepare(request: FrontendRequest): PreparedFrontend {
  const { parameters, directory, clock, log, onFailed } = request;
  const { loop = true, mount } = parameters;
  check(parameters);
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
