import { once } from 'node:events';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Registry } from 'prom-client';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { exporterLimits } from '../base/limits.ts';
import { silentLogger, type Logger } from '../base/log.ts';
import { closeServer } from '../base/unix-socket.ts';
import type { ExporterConfig } from './service-config.ts';

export interface Exporter {
  /** Where Prometheus finds the metrics. */
  readonly url: string;
  close(): Promise<void>;
}

/**
 * Serves metrics to Prometheus, as overlaybd's exporterConfig says; on loopback unless told otherwise,
 * because there is no password. Throws ERR_EXPORTER when the address cannot be had.
 */
export async function startExporter(
  { address, port, uriPrefix }: Omit<ExporterConfig, 'enable'>,
  metrics: Registry,
  log: Logger = silentLogger,
): Promise<Exporter> {
  const server = createServer(
    { requestTimeout: exporterLimits.requestMsMax },
    (request, response) => {
      request.resume();
      const path = (request.url ?? '').split('?', 1)[0];
      if (path !== uriPrefix) return void reply(response, 404, 'no such path\n');
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        response.setHeader('allow', 'GET, HEAD');
        return void reply(response, 405, 'GET and HEAD only\n');
      }
      metrics.metrics().then(
        (text) => reply(response, 200, text, metrics.contentType),
        (error: unknown) => {
          log.error(`exporter: ${messageOf(error)}`);
          reply(response, 500, 'metrics failed: see the log\n');
        },
      );
    },
  );
  server.maxConnections = exporterLimits.connectionsMax;
  await listen(server, address, port);
  const { port: given } = server.address() as AddressInfo;
  const host = address.includes(':') ? `[${address}]` : address;
  return {
    url: `http://${host}:${given}${uriPrefix}`,
    async close() {
      const closed = closeServer(server);
      server.closeAllConnections();
      await closed;
    },
  };
}

async function listen(server: Server, address: string, port: number): Promise<void> {
  try {
    const listening = once(server, 'listening');
    server.listen(port, address);
    await listening;
  } catch (error) {
    throw new ReplaybdError(
      'ERR_EXPORTER',
      `exporter: cannot listen on ${address} port ${port}: ${messageOf(error)}. Choose another ` +
        'exporterConfig.port, or replaybd.exporterAddress.',
      { cause: error },
    );
  }
}

function reply(response: ServerResponse, status: number, text: string, type = 'text/plain'): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(response.req.method === 'HEAD' ? undefined : text);
}
