import { join } from 'node:path';
import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { startVhostUser } from './server.ts';

/** The end of the name of a device's socket in the runtime directory. */
export const VHOST_USER_SOCKET_SUFFIX = '.vhost';

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
