import { once } from 'node:events';
import type { Server } from 'node:http';
import { isIP } from 'node:net';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { closeWithin, createApiServer } from './control.ts';
import { metricsRoute, upstreamRoutes } from './control-routes.ts';
import type { DaemonContext, DaemonPart } from './daemon-parts.ts';
import { deviceHandlers } from './device-handlers.ts';

/**
 * What overlaybd's daemon listens on, where its configuration asks for it: metrics for Prometheus
 * (`exporterConfig`) and the snapshot call (`serviceConfig`). Neither has a password, so the second is
 * for loopback addresses only. Throws ERR_LISTEN and ERR_CONFIG_UNSUPPORTED.
 */
export async function start({ devices, service, log }: DaemonContext): Promise<DaemonPart | null> {
  if (service === null) return null;
  const { exporterConfig, serviceConfig } = service;
  const handlers = deviceHandlers(devices);
  const servers: Server[] = [];
  const close = async (): Promise<void> => {
    await Promise.all(servers.map(closeWithin));
  };
  const serve = async (server: Server, host: string, port: number): Promise<void> => {
    await listen(server, host, port);
    servers.push(server);
  };
  try {
    if (exporterConfig.enable) {
      const { address, port, uriPrefix } = exporterConfig;
      const server = createApiServer([metricsRoute(uriPrefix, handlers)], log);
      try {
        await serve(server, address, port);
        log.info({ address: server.address(), path: uriPrefix }, 'metrics are exported');
      } catch (error) {
        // Disks matter more than their metrics.
        log.error(`exporterConfig, replaybd.exporterAddress: ${messageOf(error)}`);
      }
    }
    if (serviceConfig.enable) {
      const { host, port } = loopbackAddress(serviceConfig.address);
      await serve(createApiServer(upstreamRoutes(handlers), log), host, port);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { close };
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  try {
    server.listen(port, host);
    await once(server, 'listening');
  } catch (error) {
    throw new ReplaybdError('ERR_LISTEN', `${host}:${port}: ${messageOf(error)}`, { cause: error });
  }
}

/** Whoever reaches the snapshot call has files removed and written. */
function loopbackAddress(url: string): { host: string; port: number } {
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
