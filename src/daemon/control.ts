import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { controlLimits } from '../base/limits.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { closeServer, listenOnUnixSocket } from '../base/unix-socket.ts';
import {
  controlRoutes,
  errorBody,
  errorReply,
  type ControlHandlers,
  type ControlRoute,
  type Reply,
} from './control-routes.ts';
import { matchRoute } from './router.ts';

export interface ControlOptions {
  socketPath: string;
  handlers: ControlHandlers;
  log?: Logger;
}

export interface Control {
  readonly socketPath: string;
  /** Stops listening, ends idle connections and waits, within a limit, for requests in progress. */
  close(): Promise<void>;
}

/**
 * Serves the control API, see controlRoutes: HTTP/1.1 on a unix socket of mode 0600. Parameters are a
 * JSON object in the body. Replies are JSON, but for /metrics; errors are
 * {"error": {"code": "ERR_...", "message": "..."}}. Throws ERR_SOCKET_PATH or ERR_SOCKET_IN_USE.
 */
export async function startControl(options: ControlOptions): Promise<Control> {
  const { socketPath, handlers, log = silentLogger } = options;
  const server = createApiServer(controlRoutes(handlers), log);
  await listenOnUnixSocket(server, socketPath);
  let closing: Promise<void> | null = null;
  return {
    socketPath,
    close: async () => await (closing ??= closeWithin(server)),
  };
}

/** An HTTP server of some routes, within the control API's limits. The caller has it listen. */
export function createApiServer(routes: readonly ControlRoute[], log: Logger): Server {
  const server = createServer((request, response) => {
    answer(routes, request).then(
      (reply) => send(response, reply),
      (error: unknown) => {
        const reply = errorReply(error);
        logFailure(log, request, reply, error);
        send(response, reply);
      },
    );
  });
  server.maxConnections = controlLimits.connectionsMax;
  server.requestTimeout = controlLimits.requestMsMax;
  server.headersTimeout = controlLimits.requestMsMax;
  server.once('listening', () => {
    // Such as a process out of file descriptors: requests in progress go on.
    server.on('error', (error) => log.error({ err: error }, 'control API cannot accept a client'));
  });
  return server;
}

/** Waits for requests in progress, and no longer than the limit allows. */
export async function closeWithin(server: Server): Promise<void> {
  const timer = setTimeout(() => server.closeAllConnections(), controlLimits.closeMsMax);
  await closeServer(server);
  clearTimeout(timer);
}

async function answer(routes: readonly ControlRoute[], request: IncomingMessage): Promise<Reply> {
  const url = request.url ?? '';
  const found = matchRoute(routes, request.method ?? '', url);
  if (found.kind === 'none') {
    return errorBody(404, 'ERR_CONTROL_PATH', `no such path: ${url}`);
  }
  if (found.kind === 'otherMethod') {
    const message = `${url} takes ${found.allowed.join(', ')}`;
    const reply = errorBody(405, 'ERR_CONTROL_METHOD', message);
    return { ...reply, allow: found.allowed.join(', ') };
  }
  const query = new URLSearchParams(url.split('?').slice(1).join('?'));
  return await found.use({ id: found.id, body: await readBody(request), query });
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > controlLimits.bodyBytesMax) {
      throw new ReplaybdError(
        'ERR_CONTROL_BODY_SIZE',
        `control request: expected at most ${controlLimits.bodyBytesMax} bytes of body, found more`,
        { errno: 'EINVAL' },
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

/** What a client did wrong is its own to read; what went wrong here is for who runs this process. */
function logFailure(log: Logger, request: IncomingMessage, reply: Reply, error: unknown): void {
  const { method, url } = request;
  if (reply.status < 500) {
    log.debug({ method, url, status: reply.status, code: codeOf(error) }, messageOf(error));
  } else {
    log.warn({ err: error, method, url, status: reply.status }, messageOf(error));
  }
}

function send(response: ServerResponse, reply: Reply): void {
  response.writeHead(reply.status, {
    'content-type': reply.type,
    'content-length': Buffer.byteLength(reply.body),
    ...(reply.allow === undefined ? {} : { allow: reply.allow }),
    // What is left of a body that was refused is not read.
    ...(reply.status === 413 ? { connection: 'close' } : {}),
  });
  response.end(reply.body);
}
