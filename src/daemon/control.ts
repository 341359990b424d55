import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { controlLimits } from '../base/limits.ts';
import { type Logger, silentLogger } from '../base/log.ts';
import { closeServer, listenOnUnixSocket } from '../base/unix-socket.ts';
import {
  parseForkParameters,
  parseNoParameters,
  parseSnapshotParameters,
  type ForkParameters,
  type SnapshotParameters,
} from './control-parameters.ts';
import { matchRoute, type Route } from './router.ts';

/**
 * What the daemon tells and does. Whatever a function returns is sent as JSON. A ReplaybdError
 * becomes the HTTP status of its errno: ENOENT (an unknown device) 404, EBUSY 409, EINVAL 400.
 */
export interface ControlHandlers {
  health(): JsonValue | Promise<JsonValue>;
  devices(): JsonValue | Promise<JsonValue>;
  stats(deviceId: string): JsonValue | Promise<JsonValue>;
  /** Prometheus text, format 0.0.4. */
  metrics(): string | Promise<string>;
  stopRecording(deviceId: string): JsonValue | Promise<JsonValue>;
  detach(deviceId: string): JsonValue | Promise<JsonValue>;
  snapshot(deviceId: string, parameters: SnapshotParameters): JsonValue | Promise<JsonValue>;
  fork(deviceId: string, parameters: ForkParameters): JsonValue | Promise<JsonValue>;
}

export type JsonValue =
  null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

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
 * Serves the control API: HTTP/1.1 on a unix socket of mode 0600.
 *
 *   GET  /v1/health                      GET  /v1/devices
 *   GET  /v1/devices/:id/stats           GET  /metrics
 *   POST /v1/devices/:id/record/stop     POST /v1/devices/:id/detach
 *   POST /v1/devices/:id/snapshot        {"data": PATH, "index": PATH, "kind": KIND}, each optional
 *   POST /v1/devices/:id/fork            {"folder": PATH, "kind": KIND}
 *
 * Parameters are a JSON object in the body. Replies are JSON, but for /metrics; errors are {"error": {"code": "ERR_...", "message": "..."}}.
 * Throws ERR_SOCKET_PATH or ERR_SOCKET_IN_USE.
 */
export async function startControl(options: ControlOptions): Promise<Control> {
  const { socketPath, handlers } = options;
  const log = options.log ?? silentLogger;
  const routes = controlRoutes(handlers);
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
  await listenOnUnixSocket(server, socketPath);
  // Such as a process out of file descriptors: requests in progress go on.
  server.on('error', (error) => log.error({ err: error }, 'control API cannot accept a client'));
  let closing: Promise<void> | null = null;
  return {
    socketPath,
    close: async () => await (closing ??= closeWithin(server)),
  };
}

async function closeWithin(server: Server): Promise<void> {
  const timer = setTimeout(() => server.closeAllConnections(), controlLimits.closeMsMax);
  await closeServer(server);
  clearTimeout(timer);
}

interface Reply {
  status: number;
  type: string;
  body: string;
  allow?: string;
}

/** `body` is the request's, whole. */
type ControlRoute = Route<(id: string, body: string) => Promise<Reply>>;

function controlRoutes(handlers: ControlHandlers): ControlRoute[] {
  const json = async (value: JsonValue | Promise<JsonValue>): Promise<Reply> => {
    return jsonReply(200, await value);
  };
  const get = (path: string, use: (id: string) => Promise<Reply>): ControlRoute => {
    return { method: 'GET', path, use: withoutParameters(use) };
  };
  const post = (verb: string, use: ControlRoute['use']): ControlRoute => {
    return { method: 'POST', path: `/v1/devices/:id/${verb}`, use };
  };
  return [
    get('/v1/health', async () => await json(handlers.health())),
    get('/v1/devices', async () => await json(handlers.devices())),
    get('/v1/devices/:id/stats', async (id) => await json(handlers.stats(id))),
    get('/metrics', async () => ({
      status: 200,
      type: 'text/plain; version=0.0.4; charset=utf-8',
      body: await handlers.metrics(),
    })),
    post(
      'record/stop',
      withoutParameters(async (id) => await json(handlers.stopRecording(id))),
    ),
    post(
      'detach',
      withoutParameters(async (id) => await json(handlers.detach(id))),
    ),
    post('snapshot', async (id, body) => {
      return await json(handlers.snapshot(id, parseSnapshotParameters(body)));
    }),
    post('fork', async (id, body) => await json(handlers.fork(id, parseForkParameters(body)))),
  ];
}

function withoutParameters(use: (id: string) => Promise<Reply>): ControlRoute['use'] {
  return async (id, body) => {
    parseNoParameters(body);
    return await use(id);
  };
}

async function answer(routes: readonly ControlRoute[], request: IncomingMessage): Promise<Reply> {
  const found = matchRoute(routes, request.method ?? '', request.url ?? '');
  if (found.kind === 'none') {
    return errorBody(404, 'ERR_CONTROL_PATH', `no such path: ${request.url ?? ''}`);
  }
  if (found.kind === 'otherMethod') {
    const message = `${request.url ?? ''} takes ${found.allowed.join(', ')}`;
    const reply = errorBody(405, 'ERR_CONTROL_METHOD', message);
    return { ...reply, allow: found.allowed.join(', ') };
  }
  return await found.use(found.id, await readBody(request));
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

function errorReply(error: unknown): Reply {
  const code = error instanceof ReplaybdError ? error.code : 'ERR_INTERNAL';
  // What went wrong inside is for the log; a ReplaybdError is written for the caller.
  const message = error instanceof ReplaybdError ? error.message : `failed (${codeOf(error)})`;
  return errorBody(statusOf(error), code, message);
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

function statusOf(error: unknown): number {
  if (!(error instanceof ReplaybdError)) return 500;
  if (error.code === 'ERR_CONTROL_BODY_SIZE') return 413;
  switch (error.errno) {
    case 'ENOENT':
      return 404;
    case 'EBUSY':
      return 409;
    case 'EINVAL':
      return 400;
    default:
      return 500;
  }
}

function errorBody(status: number, code: string, message: string): Reply {
  return jsonReply(status, { error: { code, message } });
}

function jsonReply(status: number, value: JsonValue): Reply {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
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
