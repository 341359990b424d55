import { join } from 'node:path';
import type { FrontendRequest, PreparedFrontend } from '../frontend.ts';
import { startNbd } from './server.ts';

/** The end of the name of a device's socket in the runtime directory. */
export const NBD_SOCKET_SUFFIX = '.nbd';

/** An NBD server for one device. */
export function prepare({ id, parameters, directory, log }: FrontendRequest): PreparedFrontend {
  const { socket, port } = parameters;
  const socketPath = socket ?? join(directory, `${id}${NBD_SOCKET_SUFFIX}`);
  return {
    readerThreads: 0,
    start: (device) =>
      startNbd(device, { log, ...(port === undefined ? { socketPath } : { port }) }),
    discard: () => undefined,
  };
}
