import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { getCACertificates } from 'node:tls';
import { Pool, type Dispatcher } from 'undici';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import type { Lane } from '../blob/blob.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { networkError } from './network-error.ts';
import { Preconnector } from './preconnector.ts';

export interface TransportOptions {
  /** Sockets an origin gets in each lane. Default 8 for demand, 48 for prefetch. */
  connections?: Partial<Record<Lane, number>>;
  /** PEM files of authorities trusted beside Node's own. */
  caFiles?: readonly string[];
  /** overlaybd's certConfig: the client certificate shown to registries, never to other hosts. */
  clientCertificate?: { certFile: string; keyFile: string };
  connectTimeoutMs?: number;
  /** Longest silence before an answer; of an upload, also while nothing of its body is taken. */
  headersTimeoutMs?: number;
  /** Longest silence inside a body. */
  bodyTimeoutMs?: number;
  /** How long an idle connection is kept. */
  keepAliveMs?: number;
}

export interface HttpRequest {
  url: URL;
  method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  lane: Lane;
  headers: Record<string, string>;
  body?: Uint8Array | Readable;
  signal?: AbortSignal;
  /** The receiver is a registry, not a host it pointed to. */
  isRegistry?: boolean;
}

export interface ResponseHead {
  /** What answered. */
  url: URL;
  status: number;
  headers: Readonly<Record<string, string | string[] | undefined>>;
}

/** Receives one response. Throwing from either method aborts the exchange with that error. */
export interface BodySink {
  onHead(head: ResponseHead): void;
  /** The chunk is only valid during the call. */
  onData(chunk: Uint8Array): void;
}

interface ConnectedPool {
  pool: Pool;
  preconnector: Preconnector;
}

const DEFAULT_CONNECTIONS: Record<Lane, number> = { demand: 8, prefetch: 48 };
const DEFAULT_HEADERS_TIMEOUT_MS = 30_000;

/**
 * HTTP/1.1 over undici pools: one pool for each origin and lane, so that a prefetch never occupies
 * a socket a demand read could use. Knows nothing of registries; follows no redirect.
 */
export class Transport {
  readonly #options: TransportOptions;
  readonly #pools = new Map<string, ConnectedPool>();
  readonly #authorities: string[] | null;
  #isClosed = false;
  readonly #identity: { cert: string; key: string } | null;

  constructor(options: TransportOptions) {
    this.#options = options;
    const caFiles = options.caFiles ?? [];
    this.#authorities =
      caFiles.length === 0 ? null : [...getCACertificates('default'), ...caFiles.map(readPem)];
    const pair = options.clientCertificate;
    this.#identity =
      pair === undefined ? null : { cert: readPem(pair.certFile), key: readPem(pair.keyFile) };
  }

  /**
   * Sends a request and resolves when the whole response went through `sink`. Rejects with what
   * the sink threw, the signal's reason, or a RegistryError of the network; after `close`, with
   * ERR_REGISTRY_CLOSED.
   */
  exchange(request: HttpRequest, sink: BodySink): Promise<ResponseHead> {
    if (this.#isClosed) return Promise.reject(closedError(request.url));
    return new Promise((resolve, reject) => {
      const handler = new ExchangeHandler(request, sink, resolve, reject);
      if (!handler.watchSignal()) return;
      const { body = null } = request;
      const isStream = body instanceof Readable;
      const stallMs = this.#options.headersTimeoutMs ?? DEFAULT_HEADERS_TIMEOUT_MS;
      this.#pool(request).pool.dispatch(
        {
          method: request.method,
          path: request.url.pathname + request.url.search,
          headers: request.headers,
          body: isStream ? handler.watchUpload(body, stallMs) : body,
          // The pool's time would count while a slow link takes the body.
          ...(isStream ? { headersTimeout: 0 } : {}),
        },
        handler,
      );
    });
  }

  /** Begins to open connections to a registry, ahead of the lane's first requests. */
  preconnect(origin: URL, lane: Lane, count: number): void {
    if (this.#isClosed) return;
    const { preconnector } = this.#pool({ url: origin, lane, isRegistry: true });
    preconnector.prepare(origin, Math.min(count, this.#connections(lane)));
  }

  /** Ends every connection, also those that are being opened. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const pools = [...this.#pools.values()];
    this.#pools.clear();
    for (const { preconnector } of pools) preconnector.close();
    await Promise.all(pools.map(({ pool }) => pool.destroy()));
  }

  #connections(lane: Lane): number {
    return this.#options.connections?.[lane] ?? DEFAULT_CONNECTIONS[lane];
  }

  #pool(request: Pick<HttpRequest, 'url' | 'lane' | 'isRegistry'>): ConnectedPool {
    const showsIdentity = request.isRegistry === true && this.#identity !== null;
    const key = `${request.lane} ${showsIdentity} ${request.url.origin}`;
    const existing = this.#pools.get(key);
    if (existing !== undefined) return existing;
    const { connectTimeoutMs, headersTimeoutMs, bodyTimeoutMs } = this.#options;
    const preconnector = new Preconnector({
      timeout: connectTimeoutMs ?? 10_000,
      ...(this.#authorities === null ? {} : { ca: this.#authorities }),
      ...(showsIdentity ? this.#identity : {}),
    });
    const pool = new Pool(request.url.origin, {
      connections: this.#connections(request.lane),
      pipelining: 1,
      allowH2: false,
      headersTimeout: headersTimeoutMs ?? DEFAULT_HEADERS_TIMEOUT_MS,
      bodyTimeout: bodyTimeoutMs ?? 30_000,
      keepAliveTimeout: this.#options.keepAliveMs ?? 60_000,
      connect: preconnector.connect,
    });
    const connected = { pool, preconnector };
    this.#pools.set(key, connected);
    return connected;
  }
}

/** One exchange; settles its promise exactly once. */
class ExchangeHandler implements Dispatcher.DispatchHandler {
  readonly #request: HttpRequest;
  readonly #sink: BodySink;
  readonly #resolve: (head: ResponseHead) => void;
  readonly #reject: (error: unknown) => void;
  readonly #onAbort = (): void => this.#fail(this.#request.signal?.reason);
  #controller: Dispatcher.DispatchController | null = null;
  #head: ResponseHead | null = null;
  #settled = false;
  #upload: { body: Readable; stallMs: number } | null = null;
  #stallTimer: NodeJS.Timeout | undefined;

  constructor(
    request: HttpRequest,
    sink: BodySink,
    resolve: (head: ResponseHead) => void,
    reject: (error: unknown) => void,
  ) {
    this.#request = request;
    this.#sink = sink;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** False when the signal had fired already: nothing is to be sent. */
  watchSignal(): boolean {
    const { signal } = this.#request;
    if (signal?.aborted === true) {
      this.#fail(signal.reason);
      return false;
    }
    signal?.addEventListener('abort', this.#onAbort, { once: true });
    return true;
  }

  /** Gives the exchange up when, for so long, nothing of the body is taken and no answer comes. */
  watchUpload(body: Readable, stallMs: number): Readable {
    this.#upload = { body, stallMs };
    const refresh = () => this.#stallTimer?.refresh();
    return Readable.from(
      (async function* () {
        for await (const chunk of body as AsyncIterable<Buffer>) {
          refresh();
          yield chunk;
        }
        refresh();
      })(),
      { objectMode: false },
    );
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#upload !== null && !this.#settled) {
      this.#stallTimer = setTimeout(() => this.#stalled(), this.#upload.stallMs);
    }
    // Given up while it waited for a socket: release the socket unused.
    if (this.#settled) controller.abort(new Error('given up while queued'));
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: ResponseHead['headers'],
  ): void {
    if (this.#settled || status < 200) return;
    clearTimeout(this.#stallTimer);
    const head = { url: this.#request.url, status, headers };
    this.#head = head;
    this.#guard(() => this.#sink.onHead(head));
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Uint8Array): void {
    if (!this.#settled) this.#guard(() => this.#sink.onData(chunk));
  }

  onResponseEnd(): void {
    if (this.#settled || this.#head === null) return;
    this.#settle();
    this.#resolve(this.#head);
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(networkError(this.#request.url, error));
  }

  #stalled(): void {
    const cause = Object.assign(new Error('nothing was taken of the body'), { code: 'ETIMEDOUT' });
    this.#fail(networkError(this.#request.url, cause));
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    if (this.#settled) return;
    this.#settle();
    this.#reject(error);
    this.#controller?.abort(error instanceof Error ? error : new Error('given up'));
  }

  #settle(): void {
    this.#settled = true;
    clearTimeout(this.#stallTimer);
    this.#upload?.body.destroy();
    this.#request.signal?.removeEventListener('abort', this.#onAbort);
  }
}

function closedError(url: URL): RegistryError {
  return new RegistryError(
    'ERR_REGISTRY_CLOSED',
    `${publicUrl(url)}: expected an open client, found that its connections were ended.`,
  );
}

function readPem(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new ReplaybdError('ERR_REGISTRY_CERTIFICATE', `${path}: ${messageOf(error)}`, {
      cause: error,
      errno: 'EINVAL',
    });
  }
}
