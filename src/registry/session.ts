import type { Readable } from 'node:stream';
import { abandonable } from '../base/abandonable.ts';
import type { Clock } from '../base/clock.ts';
import { registryLimits } from '../base/limits.ts';
import type { Lane } from '../blob/blob.ts';
import type { Access, Authorizer } from './auth.ts';
import { RegistryError, publicUrl } from './errors.ts';
import { header } from './headers.ts';
import { ProbeGate } from './probe-gate.ts';
import { Remembered } from './remembered.ts';
import type { BodySink, HttpRequest, ResponseHead, Transport } from './transport.ts';

export interface SessionRequest {
  url: URL;
  method: HttpRequest['method'];
  access: Access;
  lane?: Lane;
  headers?: Record<string, string>;
  /** Called again when the request is sent a second time, after a challenge. */
  body?: () => Uint8Array | Readable;
  signal?: AbortSignal;
}

export interface SessionOptions {
  transport: Transport;
  authorizer: Authorizer;
  clock: Clock;
  userAgent: string;
  allowsPlainHttp: (host: string) => boolean;
}

const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/**
 * Requests with everything a registry adds to HTTP: a token, one renewal of it after a challenge,
 * redirects. Authorization goes to the registry's own origin and nowhere else.
 */
export class Session {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly #options: SessionOptions;
  readonly #gates = new Remembered<ProbeGate>(registryLimits.rememberedMax);

  constructor(options: SessionOptions) {
    this.transport = options.transport;
    this.clock = options.clock;
    this.#options = options;
  }

  /**
   * Sends a request. The sink sees every response on the way (challenge, redirect, answer); the
   * last head is returned whatever its status. Redirects are followed for GET and HEAD.
   */
  async exchange(request: SessionRequest, sink: BodySink): Promise<ResponseHead> {
    const head = await this.#exchangeWithRegistry(request, sink);
    const isReading = request.method === 'GET' || request.method === 'HEAD';
    if (!REDIRECTS.has(head.status) || !isReading) return head;
    return this.#follow(request, head, sink);
  }

  /** The Authorization header a request to the registry itself would carry now. */
  authorization(access: Access): Promise<string | null> {
    return this.#options.authorizer.authorization(access);
  }

  /** One request to a host a registry pointed to: no credentials, no redirect followed. */
  exchangeWithTarget(request: SessionRequest, sink: BodySink): Promise<ResponseHead> {
    return this.transport.exchange(this.#build(request, null), sink);
  }

  /** Whether a server at `from` may send us to `to`: never from TLS to plain HTTP unasked. */
  mayFollow(from: URL, to: URL): boolean {
    if (!/^https?:$/.test(to.protocol) || to.username !== '') return false;
    const losesTls = from.protocol === 'https:' && to.protocol === 'http:';
    return !losesTls || this.#options.allowsPlainHttp(to.host);
  }

  /** Sends to the registry itself; a 401, or a 403 with a challenge, is answered once. */
  async #exchangeWithRegistry(request: SessionRequest, sink: BodySink): Promise<ResponseHead> {
    const { access, signal } = request;
    const { authorizer } = this.#options;
    const key = `${access.repository.origin}/${access.repository.name}`;
    const gate = this.#gates.getOrCreate(key, () => new ProbeGate(this.clock));
    const leave = await gate.enter(signal);
    try {
      // Others may wait for the same token: this request alone ends with its signal.
      const first = await abandonable(authorizer.authorization(access), signal);
      const tapped = withHeadTap(sink, (head) => {
        if (settlesAccess(head)) leave(true);
      });
      const head = await this.transport.exchange(this.#build(request, first), tapped);
      if (!wantsCredentials(head)) return head;
      const challenge = header(head.headers, 'www-authenticate');
      const second = await abandonable(authorizer.renew(access, challenge, first), signal);
      leave(true);
      return await this.transport.exchange(this.#build(request, second), sink);
    } finally {
      leave(false);
    }
  }

  async #follow(
    request: SessionRequest,
    redirect: ResponseHead,
    sink: BodySink,
  ): Promise<ResponseHead> {
    const visited = new Set([request.url.href]);
    let head = redirect;
    let url = request.url;
    for (let count = 0; REDIRECTS.has(head.status); count += 1) {
      url = this.#nextUrl(url, head);
      if (visited.has(url.href) || count === registryLimits.redirectsMax) {
        throw badRedirect(
          request.url,
          `redirects that end, at most ${registryLimits.redirectsMax}`,
        );
      }
      visited.add(url.href);
      const isOwnOrigin = url.origin === request.access.repository.origin;
      head = isOwnOrigin
        ? await this.#exchangeWithRegistry({ ...request, url }, sink)
        : await this.exchangeWithTarget({ ...request, url }, sink);
    }
    return head;
  }

  #nextUrl(from: URL, head: ResponseHead): URL {
    const url = URL.parse(header(head.headers, 'location') ?? '', from.href);
    if (url === null || !this.mayFollow(from, url)) {
      throw badRedirect(from, 'a redirect to an http or https URL that does not give up TLS');
    }
    url.hash = '';
    return url;
  }

  #build(request: SessionRequest, authorization: string | null): HttpRequest {
    const { url } = request;
    const headers: Record<string, string> = {
      'user-agent': this.#options.userAgent,
      'accept-encoding': 'identity',
      ...request.headers,
    };
    if (authorization !== null) headers.authorization = authorization;
    return {
      url,
      method: request.method,
      lane: request.lane ?? 'demand',
      headers,
      isRegistry: url.origin === request.access.repository.origin,
      ...(request.body === undefined ? {} : { body: request.body() }),
      ...(request.signal === undefined ? {} : { signal: request.signal }),
    };
  }
}

/** Lets somebody see the heads that pass on their way to a sink. */
export function withHeadTap(sink: BodySink, onHead: (head: ResponseHead) => void): BodySink {
  return {
    onHead: (head) => {
      onHead(head);
      sink.onHead(head);
    },
    onData: (chunk) => sink.onData(chunk),
  };
}

function wantsCredentials(head: ResponseHead): boolean {
  return head.status === 401 || (head.status === 403 && 'www-authenticate' in head.headers);
}

/** The answer tells that these credentials, or none, are enough; a failing server tells nothing. */
function settlesAccess(head: ResponseHead): boolean {
  return head.status < 429 && !wantsCredentials(head);
}

function badRedirect(url: URL, expected: string): RegistryError {
  return new RegistryError(
    'ERR_REGISTRY_REDIRECT',
    `${publicUrl(url)}: expected ${expected}, found another answer.`,
  );
}
