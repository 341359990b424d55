import { once } from 'node:events';
import type { Server } from 'node:http';
import { isIP } from 'node:net';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { closeWithin, createApiServer } from './control.ts';
import { metricsRoute, upstreamRoutes } from './control-routes.ts';
import type { DaemonContext, DaemonPart } from './daemon-parts.ts';
import { deviceHandlers } from './device-handlers.ts';

interface Address {
  host: string;
  port: number;
}

/**
 * What overlaybd's daemon listens on, where its configuration asks for it: metrics for Prometheus
 * (`exporterConfig`) and the snapshot call (`serviceConfig`). Neither has a password, so the second is
 * for loopback addresses only. An address that cannot be used is told in the log, and the daemon goes on
 * without it: disks matter more.
 */
export async function start({ devices, service, log }: DaemonContext): Promise<DaemonPart | null> {
  if (service === null) return null;
  const { exporterConfig, serviceConfig } = service;
  const handlers = deviceHandlers(devices);
  const servers: Server[] = [];
  const serve = async (keys: string, server: Server, address: () => Address): Promise<void> => {
    try {
      const { host, port } = address();
      server.listen(port, host);
      await once(server, 'listening');
      servers.push(server);
      log.info({ address: server.address() }, `${keys}: served`);
    } catch (error) {
      log.error({ err: error }, `${keys}: not served: ${messageOf(error)}`);
    }
  };
  if (exporterConfig.enable) {
    const { address: host, port, uriPrefix } = exporterConfig;
    const server = createApiServer([metricsRoute(uriPrefix, handlers)], log);
    await serve('exporterConfig, replaybd.exporterAddress', server, () => ({ host, port }));
  }
  if (serviceConfig.enable) {
    const server = createApiServer(upstreamRoutes(handlers), log);
    await serve('serviceConfig', server, () => loopbackAddress(serviceConfig.address));
  }
  return {
    close: async () => {
      await Promise.all(servers.map(closeWithin));
    },
  };
}

/** Whoever reaches the snapshot call has files removed and written. */
function loopbackAddress(url: string): Address {
  const { hostname = '', port = '', protocol = '' } = URL.parse(url) ?? {};
  const host = hostname === 'localhost' ? '127.0.0.1' : hostname.replace(/^\[(.*)\]$/, '$1');
  const isLoopback = host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
  if (isLoopback && protocol === 'http:') return { host, port: port === '' ? 80 : Number(port) };
  throw new ReplaybdError(
    'ERR_CONFIG_UNSUPPORTED',
    `serviceConfig.address: expected http:// and a loopback address, found ${url}. ` +
      'The call has no password; reach it from elsewhere through a tunnel that has.',
    { errno: 'EINVAL' },
  );
}
