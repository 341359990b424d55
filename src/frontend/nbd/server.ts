import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { ReplaybdError } from '../../base/errors.ts';
import { nbdLimits } from '../../base/limits.ts';
import { type Logger, silentLogger } from '../../base/log.ts';
import { closeServer, listenOnUnixSocket } from '../../base/unix-socket.ts';
import type { Frontend } from '../frontend.ts';
import { NbdConnection } from './connection.ts';
import { checkExports, type NbdDevice, type NbdExports } from './export.ts';

/** Names of this machine alone: NBD has no authentication, so it is not offered to others. */
const LOOPBACK_HOSTS = ['127.0.0.1', '::1', 'localhost'];

export interface NbdOptions {
  /** Listen on this unix socket, mode 0600. Takes the place of host and port. */
  socketPath?: string;
  /** A loopback address; 127.0.0.1 when absent. */
  host?: string;
  /** 0 or absent: any free port. */
  port?: number;
  /** Name of a single device's export; '' when absent. Several are named by their id. */
  exportName?: string;
  log?: Logger;
}

export interface NbdFrontend extends Frontend {
  readonly kind: 'nbd';
}

/**
 * Serves devices over NBD (fixed newstyle) until closed. `path` is the NBD URI of the first one.
 * Throws ERR_NBD_EXPORT, ERR_NBD_HOST, ERR_SOCKET_PATH or ERR_SOCKET_IN_USE.
 */
export async function startNbd(
  devices: NbdDevice | readonly NbdDevice[],
  options: NbdOptions = {},
): Promise<NbdFrontend> {
  const exports = nameExports(devices, options.exportName ?? '');
  checkExports(exports);
  const connections = new Set<NbdConnection>();
  const log = options.log ?? silentLogger;
  // A client may end its half of the stream and still wait for replies.
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket: Socket) => {
    const connection = new NbdConnection(socket, exports, log);
    connections.add(connection);
    void connection.closed.then(() => connections.delete(connection));
  });
  server.maxConnections = nbdLimits.connectionsMax;
  const authority = await listen(server, options);
  // Such as a process out of file descriptors: the clients that are connected stay.
  server.on('error', (error) => log.error({ err: error }, 'NBD server cannot accept a client'));
  const [name = ''] = exports.keys();
  let closing: Promise<void> | null = null;
  return {
    kind: 'nbd',
    path: exportUri(authority, name),
    close: async () => await (closing ??= closeAll(server, connections)),
    // The protocol cannot tell clients that are connected; others learn the size as they connect.
    resize: (grow) => grow(),
  };
}

function nameExports(devices: NbdDevice | readonly NbdDevice[], single: string): NbdExports {
  if ('id' in devices) return new Map([[single, devices]]);
  const exports = new Map(devices.map((device) => [device.id, device]));
  assert(exports.size === devices.length, 'device ids are unique in a process');
  return exports;
}

interface Authority {
  scheme: 'nbd' | 'nbd+unix';
  host: string;
  query: string;
}

async function listen(server: Server, options: NbdOptions): Promise<Authority> {
  if (options.socketPath !== undefined) {
    const socketPath = resolve(options.socketPath);
    await listenOnUnixSocket(server, socketPath);
    const escaped = socketPath.split('/').map(encodeURIComponent).join('/');
    return { scheme: 'nbd+unix', host: '', query: `?socket=${escaped}` };
  }
  const host = options.host ?? '127.0.0.1';
  if (!LOOPBACK_HOSTS.includes(host)) {
    throw new ReplaybdError(
      'ERR_NBD_HOST',
      `NBD server: expected a loopback address, found ${host}. NBD has no authentication; reach ` +
        'the device from elsewhere through a tunnel that has.',
      { errno: 'EINVAL' },
    );
  }
  server.listen(options.port ?? 0, host);
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return { scheme: 'nbd', host: `${host.includes(':') ? `[${host}]` : host}:${port}`, query: '' };
}

/** https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md */
function exportUri({ scheme, host, query }: Authority, name: string): string {
  return `${scheme}://${host}/${encodeURIComponent(name)}${query}`;
}

async function closeAll(server: Server, connections: Set<NbdConnection>): Promise<void> {
  const closed = closeServer(server);
  await Promise.all([...connections].map(async (connection) => await connection.shutDown()));
  await closed;
}
