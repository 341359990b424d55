import { join } from 'node:path';
import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { VHOST_USER_SOCKET_SUFFIX } from './limits.ts';
import { startVhostUser } from './server.ts';

/** A vhost-user-blk back end for one device. */
export function prepare(request: FrontendRequest): PreparedFrontend {
  const { id, parameters, directory, clock, log } = request;
  const socketPath = parameters.socket ?? join(directory, `${id}${VHOST_USER_SOCKET_SUFFIX}`);
  return {
    readerThreads: 0,
    start: (device) => startVhostUser(device, { socketPath, clock, log }),
    discard: () => undefined,
  };
}
