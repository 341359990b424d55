import { codeOf, ReplaybdError } from '../base/errors.ts';
import type { AttachDefaults, AttachParameters } from './attach-parameters.ts';
import {
  parseAttachParameters,
  parseForkParameters,
  parseNoParameters,
  parseRecordParameters,
  parseResizeParameters,
  parseSince,
  parseSnapshotParameters,
  type ForkParameters,
  type RecordParameters,
  type ResizeParameters,
  type SnapshotParameters,
} from './control-parameters.ts';
import type { Route } from './router.ts';

type Answer = JsonValue | Promise<JsonValue>;

/**
 * What the daemon tells and does. Whatever a function returns is sent as JSON. A ReplaybdError
 * becomes the HTTP status of its errno: ENOENT (an unknown device) 404, EBUSY 409, EINVAL 400.
 */
export interface ControlHandlers {
  health(): Answer;
  devices(): Answer;
  stats(deviceId: string): Answer;
  /** First touches from a number on, see TouchFeed. */
  touches(deviceId: string, since: number): Answer;
  /** Prometheus text, format 0.0.4. */
  metrics(): string | Promise<string>;
  /** What holds for an attach that does not say. */
  readonly attachDefaults?: AttachDefaults;
  attach(parameters: AttachParameters): Answer;
  detach(deviceId: string): Answer;
  startRecording(deviceId: string, parameters: RecordParameters): Answer;
  stopRecording(deviceId: string): Answer;
  snapshot(deviceId: string, parameters: SnapshotParameters): Answer;
  fork(deviceId: string, parameters: ForkParameters): Answer;
  resize(deviceId: string, parameters: ResizeParameters): Answer;
  /** overlaybd's own call, with its own kind of reply. */
  upstreamSnapshot(query: URLSearchParams): Promise<UpstreamReply>;
}

export type JsonValue =
  null | boolean | number | string | readonly JsonValue[] | { readonly [key: string]: JsonValue };

export interface UpstreamReply {
  status: 200 | 400 | 404 | 500;
  success: boolean;
  message: string;
}

export interface Reply {
  status: number;
  type: string;
  body: string;
  allow?: string;
}

/** `body` is the request's, whole. */
export interface ControlRequest {
  id: string;
  body: string;
  query: URLSearchParams;
}

export type ControlRoute = Route<(request: ControlRequest) => Promise<Reply>>;

/** Every path of the control API; docs/daemon.md says what each takes and gives. */
export function controlRoutes(handlers: ControlHandlers): ControlRoute[] {
  const json = async (value: Answer): Promise<Reply> => jsonReply(200, await value);
  const get = (path: string, use: (id: string) => Promise<Reply>): ControlRoute => {
    return { method: 'GET', path, use: withoutParameters(use) };
  };
  const post = (path: string, use: ControlRoute['use']): ControlRoute => {
    return { method: 'POST', path, use };
  };
  const device = (verb: string): string => `/v1/devices/:id/${verb}`;
  return [
    get('/v1/health', () => json(handlers.health())),
    get('/v1/devices', () => json(handlers.devices())),
    get(device('stats'), async (id) => await json(handlers.stats(id))),
    {
      method: 'GET',
      path: device('touches'),
      use: async ({ id, body, query }) => {
        parseNoParameters(body);
        return await json(handlers.touches(id, parseSince(query)));
      },
    },
    metricsRoute('/metrics', handlers),
    post('/v1/devices', async ({ body }) => {
      return await json(handlers.attach(parseAttachParameters(body, handlers.attachDefaults)));
    }),
    post(
      device('detach'),
      withoutParameters(async (id) => await json(handlers.detach(id))),
    ),
    post(device('record/start'), async ({ id, body }) => {
      return await json(handlers.startRecording(id, parseRecordParameters(body)));
    }),
    post(
      device('record/stop'),
      withoutParameters(async (id) => await json(handlers.stopRecording(id))),
    ),
    post(device('snapshot'), async ({ id, body }) => {
      return await json(handlers.snapshot(id, parseSnapshotParameters(body)));
    }),
    post(device('fork'), async ({ id, body }) => {
      return await json(handlers.fork(id, parseForkParameters(body)));
    }),
    post(device('resize'), async ({ id, body }) => {
      return await json(handlers.resize(id, parseResizeParameters(body)));
    }),
    ...upstreamRoutes(handlers),
  ];
}

/** What Prometheus asks for. */
export function metricsRoute(path: string, { metrics }: Pick<ControlHandlers, 'metrics'>) {
  const type = 'text/plain; version=0.0.4; charset=utf-8';
  return {
    method: 'GET' as const,
    path,
    use: async (): Promise<Reply> => ({ status: 200, type, body: await metrics() }),
  };
}

/** overlaybd's API. It looks at no method, and takes its parameters from the query. */
export function upstreamRoutes(
  handlers: Pick<ControlHandlers, 'upstreamSnapshot'>,
): ControlRoute[] {
  const use = async ({ query }: ControlRequest): Promise<Reply> => {
    const { status, success, message } = await handlers.upstreamSnapshot(query);
    return jsonReply(status, { success, message });
  };
  return (['GET', 'POST'] as const).map((method) => ({ method, path: '/snapshot', use }));
}

function withoutParameters(use: (id: string) => Promise<Reply>): ControlRoute['use'] {
  return async ({ id, body }) => {
    parseNoParameters(body);
    return await use(id);
  };
}

/** The reply to a request that failed. */
export function errorReply(error: unknown): Reply {
  const code = error instanceof ReplaybdError ? error.code : 'ERR_INTERNAL';
  // What went wrong inside is for the log; a ReplaybdError is written for the caller.
  const message = error instanceof ReplaybdError ? error.message : `failed (${codeOf(error)})`;
  return errorBody(statusOf(error), code, message);
}

export function errorBody(status: number, code: string, message: string): Reply {
  return jsonReply(status, { error: { code, message } });
}

function jsonReply(status: number, value: JsonValue): Reply {
  return { status, type: 'application/json', body: `${JSON.stringify(value)}\n` };
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
