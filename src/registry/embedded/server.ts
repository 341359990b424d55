import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../base/errors.ts';
import { isDigest } from '../digest.ts';
import type { Fault, FaultHook, RequestFacts } from './faults.ts';
import { Guard, type AuthOptions } from './guard.ts';
import { blobReply, handle, signatureOf } from './handlers.ts';
import { Link, type LinkOptions } from './link.ts';
import { errorReply, jsonReply, sendReply, type Reply } from './reply.ts';
import { route } from './routes.ts';
import { DirectoryStore } from './store.ts';

export interface EmbeddedRegistryOptions {
  /** Directory of the registry's content; made when missing. */
  root: string;
  /** Default 127.0.0.1. */
  host?: string;
  /** Default 0: any free port. */
  port?: number;
  auth?: AuthOptions;
  link?: LinkOptions;
  faults?: FaultHook;
  /** Whether the referrers API exists; default true. */
  referrers?: boolean;
  /** Send GETs of blobs to a second listener, as registries before a storage service do. */
  redirectBlobs?: boolean;
}

/** One request, as it was answered. */
export interface LoggedRequest extends RequestFacts {
  status: number;
  /** Bytes of body sent. */
  bytes: number;
  /** When the request arrived, in milliseconds since the server started. */
  atMs: number;
}

export interface EmbeddedRegistry {
  /** `http://127.0.0.1:<port>`. */
  readonly url: string;
  readonly port: number;
  readonly store: DirectoryStore;
  readonly stats: { requests: number; bytes: number };
  /** The last 100,000 requests, oldest first. */
  readonly log: readonly LoggedRequest[];
  clearLog(): void;
  setLink(link: LinkOptions): void;
  setFaults(faults: FaultHook | undefined): void;
  revokeTokens(): void;
  close(): Promise<void>;
}

const LOG_MAX = 100_000;

/**
 * An OCI registry in this process: a real HTTP server over a directory, with a link of chosen
 * latency and bandwidth and, on request, misbehaviour. For demonstrations, measurements and tests.
 */
export async function startEmbeddedRegistry(
  options: EmbeddedRegistryOptions,
): Promise<EmbeddedRegistry> {
  const registry = new Registry(options);
  await registry.start();
  return registry;
}

class Registry implements EmbeddedRegistry {
  readonly store: DirectoryStore;
  readonly stats = { requests: 0, bytes: 0 };
  readonly log: LoggedRequest[] = [];
  readonly #options: EmbeddedRegistryOptions;
  readonly #link: Link;
  readonly #guard: Guard | null;
  readonly #server: Server;
  readonly #target: Server | null;
  readonly #startedAtMs = performance.now();
  readonly #closing = new AbortController();
  #faults: FaultHook | undefined;

  constructor(options: EmbeddedRegistryOptions) {
    this.#options = options;
    this.store = new DirectoryStore(options.root);
    this.#link = new Link(options.link ?? {});
    this.#guard = options.auth === undefined ? null : new Guard(options.auth);
    this.#faults = options.faults;
    this.#server = this.#createServer(false);
    this.#target = options.redirectBlobs === true ? this.#createServer(true) : null;
  }

  async start(): Promise<void> {
    const { host, port } = this.#options;
    await listen(this.#server, host ?? '127.0.0.1', port ?? 0);
    if (this.#target !== null) await listen(this.#target, host ?? '127.0.0.1', 0);
  }

  get port(): number {
    return portOf(this.#server);
  }

  get url(): string {
    return `http://${this.#options.host ?? '127.0.0.1'}:${this.port}`;
  }

  clearLog(): void {
    this.log.length = 0;
  }

  setLink(link: LinkOptions): void {
    this.#link.set(link);
  }

  setFaults(faults: FaultHook | undefined): void {
    this.#faults = faults;
  }

  revokeTokens(): void {
    this.#guard?.revokeTokens();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    const servers = this.#target === null ? [this.#server] : [this.#server, this.#target];
    await Promise.all(
      servers.map((server) => {
        const closed = new Promise<void>((resolve) => server.close(() => resolve()));
        server.closeAllConnections();
        return closed;
      }),
    );
  }

  get #targetOrigin(): string | null {
    if (this.#target === null) return null;
    return `http://${this.#options.host ?? '127.0.0.1'}:${portOf(this.#target)}`;
  }

  #createServer(isTarget: boolean): Server {
    const server = createServer({ keepAliveTimeout: 120_000 }, (request, response) => {
      void this.#serve(request, response, isTarget);
    });
    // Slices are paced by the link, not by the kernel's small-write delay.
    server.on('connection', (socket) => socket.setNoDelay(true));
    return server;
  }

  async #serve(request: IncomingMessage, response: ServerResponse, isTarget: boolean) {
    const url = new URL(request.url ?? '/', 'http://registry');
    const entry = this.#logRequest(request, url, isTarget);
    try {
      const fault = this.#faults?.(entry);
      const delayMs = this.#link.latencyMs + (fault?.kind === 'delay' ? fault.ms : 0);
      if (delayMs > 0) await sleep(delayMs, undefined, { signal: this.#closing.signal });
      const reply =
        fault?.kind === 'status'
          ? errorReply(fault.status, 'UNAVAILABLE', fault.headers)
          : await this.#answer(request, url, isTarget, fault);
      // A body nobody read would be taken for the next request.
      request.resume();
      entry.status = reply.status;
      if (response.destroyed) return;
      entry.bytes = await sendReply(request, response, reply, this.#link, fault);
      this.stats.bytes += entry.bytes;
    } catch (error) {
      if (response.headersSent) response.destroy();
      else response.writeHead(500).end(JSON.stringify({ message: messageOf(error) }));
    }
  }

  async #answer(
    request: IncomingMessage,
    url: URL,
    isTarget: boolean,
    fault: Fault | undefined,
  ): Promise<Reply> {
    if (isTarget) return this.#answerAsTarget(request, url, fault);
    const found = route(url.pathname);
    const { authorization } = request.headers;
    if (found.kind === 'token' && this.#guard !== null) {
      return this.#guard.issue(authorization, url.searchParams);
    }
    const isWrite = request.method !== 'GET' && request.method !== 'HEAD';
    const mountFrom = url.searchParams.get('from') ?? '';
    const { repository } = found;
    const facts = { origin: this.url, repository, isWrite, mountFrom };
    const challenge = this.#guard?.check(authorization, facts) ?? null;
    if (challenge !== null) return challenge;
    if (found.kind === 'base') return jsonReply(200, {});
    if (repository === null) return errorReply(404, 'UNSUPPORTED');
    return handle({
      store: this.store,
      request,
      route: { ...found, repository },
      query: url.searchParams,
      hasReferrers: this.#options.referrers ?? true,
      targetOrigin: this.#targetOrigin,
      ignoresRange: fault?.kind === 'ignore-range',
    });
  }

  /** The storage service: signed URLs, and no patience with credentials of somebody else. */
  #answerAsTarget(request: IncomingMessage, url: URL, fault: Fault | undefined): Reply {
    if (request.headers.authorization !== undefined) return errorReply(400, 'DENIED');
    const digest = /^\/content\/(.+)$/.exec(url.pathname)?.[1] ?? '';
    if (!isDigest(digest)) return errorReply(404, 'BLOB_UNKNOWN');
    if (url.searchParams.get('signature') !== signatureOf(digest)) return errorReply(403, 'DENIED');
    const range = fault?.kind === 'ignore-range' ? undefined : request.headers.range;
    return blobReply(this.store.anyBlob(digest), digest, range);
  }

  #logRequest(request: IncomingMessage, url: URL, isTarget: boolean): LoggedRequest {
    const entry: LoggedRequest = {
      index: this.stats.requests,
      method: request.method ?? '',
      url: url.pathname + url.search,
      kind: isTarget ? 'blob' : route(url.pathname).kind,
      isTarget,
      range: request.headers.range ?? null,
      hasAuthorization: request.headers.authorization !== undefined,
      status: 0,
      bytes: 0,
      atMs: performance.now() - this.#startedAtMs,
    };
    this.stats.requests += 1;
    this.log.push(entry);
    if (this.log.length > LOG_MAX) this.log.shift();
    return entry;
  }
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
