import type { Clock } from '../base/clock.ts';
import { registryLimits } from '../base/limits.ts';
import { basicAuthorization } from './auth.ts';
import { CollectingSink, parseJsonObject } from './collect.ts';
import type { Credentials } from './credentials.ts';
import { publicUrl, RegistryError } from './errors.ts';
import { Remembered } from './remembered.ts';
import { statusError } from './status-error.ts';
import type { HttpRequest, Transport } from './transport.ts';

/** What one token is good for. */
export interface TokenKey {
  realm: URL;
  service: string;
  scopes: readonly string[];
}

interface Token {
  authorization: string;
  /** Past this it is renewed in the background while it still serves. */
  renewAtMs: number;
  expiresAtMs: number;
}

interface TokenEntry {
  token: Token | null;
  pending: Promise<Token> | null;
}

/** The token specification's default when a server does not say, and the longest we believe. */
const LIFETIME_DEFAULT_S = 60;
const LIFETIME_MAX_S = 86_400;
/** A token is not sent in the last tenth of its life, at most this long before it ends. */
const MARGIN_MAX_MS = 10_000;
const TOKEN_LENGTH_MAX = 32 * 1024;
const CLIENT_ID = 'replaybd';

/**
 * Bearer tokens (the distribution project's token specification), cached by realm, service and
 * scope; one request in flight for each.
 */
export class TokenService {
  readonly #transport: Transport;
  readonly #clock: Clock;
  readonly #userAgent: string;
  readonly #entries = new Remembered<TokenEntry>(registryLimits.rememberedMax);

  constructor(transport: Transport, clock: Clock, userAgent: string) {
    this.#transport = transport;
    this.#clock = clock;
    this.#userAgent = userAgent;
  }

  /** An Authorization header holding a live token. */
  async bearer(key: TokenKey, credentials: () => Promise<Credentials | null>): Promise<string> {
    const entry = this.#entries.getOrCreate(textOf(key), () => ({ token: null, pending: null }));
    const nowMs = this.#clock.nowMs();
    if (entry.token !== null && nowMs < entry.token.expiresAtMs) {
      if (nowMs >= entry.token.renewAtMs) {
        // No request waits for this; should it fail, whoever finds the token expired asks again.
        this.#refresh(entry, key, credentials).catch(() => undefined);
      }
      return entry.token.authorization;
    }
    return (await this.#refresh(entry, key, credentials)).authorization;
  }

  /** Drops a token the registry refused, unless a newer one has taken its place. */
  forget(key: TokenKey, authorization: string): void {
    const entry = this.#entries.get(textOf(key));
    if (entry?.token?.authorization === authorization) entry.token = null;
  }

  #refresh(
    entry: TokenEntry,
    key: TokenKey,
    credentials: () => Promise<Credentials | null>,
  ): Promise<Token> {
    entry.pending ??= this.#request(key, credentials)
      .then((token) => (entry.token = token))
      .finally(() => (entry.pending = null));
    return entry.pending;
  }

  async #request(key: TokenKey, lookUp: () => Promise<Credentials | null>): Promise<Token> {
    const request = this.#buildRequest(key, await lookUp());
    const sink = new CollectingSink(request.url, registryLimits.answerBytesMax);
    const askedAtMs = this.#clock.nowMs();
    const head = await this.#transport.exchange(request, sink);
    if (head.status !== 200) {
      throw statusError(request.url, head, sink.bytes(), this.#clock.wallMs());
    }
    const answer = parseJsonObject(sink.bytes());
    const token = answer?.token ?? answer?.access_token;
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
      throw noToken(request.url);
    }
    if (token.length > TOKEN_LENGTH_MAX) throw noToken(request.url);
    const lifetimeMs = lifetimeSeconds(answer?.expires_in) * 1000;
    return {
      authorization: `Bearer ${token}`,
      renewAtMs: askedAtMs + lifetimeMs * 0.75,
      expiresAtMs: askedAtMs + lifetimeMs - Math.min(lifetimeMs / 10, MARGIN_MAX_MS),
    };
  }

  #buildRequest(key: TokenKey, credentials: Credentials | null): HttpRequest {
    const headers: Record<string, string> = {
      accept: 'application/json',
      'user-agent': this.#userAgent,
    };
    if (credentials?.kind === 'identity-token') {
      const form = new URLSearchParams({
        grant_type: 'refresh_token',
        service: key.service,
        scope: key.scopes.join(' '),
        client_id: CLIENT_ID,
        refresh_token: credentials.token,
      });
      headers['content-type'] = 'application/x-www-form-urlencoded';
      const body = Buffer.from(form.toString());
      return { url: key.realm, method: 'POST', lane: 'demand', headers, body };
    }
    const url = new URL(key.realm);
    if (key.service !== '') url.searchParams.set('service', key.service);
    for (const scope of key.scopes) url.searchParams.append('scope', scope);
    if (credentials !== null) {
      headers.authorization = basicAuthorization(credentials.username, credentials.password);
    }
    return { url, method: 'GET', lane: 'demand', headers };
  }
}

function lifetimeSeconds(value: unknown): number {
  if (typeof value !== 'number' || !(value > 0)) return LIFETIME_DEFAULT_S;
  return Math.min(value, LIFETIME_MAX_S);
}

function noToken(url: URL): RegistryError {
  return new RegistryError(
    'ERR_REGISTRY_AUTH',
    `${publicUrl(url)}: expected JSON with a token or access_token, found neither.`,
    { errno: 'EACCES' },
  );
}

function textOf(key: TokenKey): string {
  return JSON.stringify([key.realm.href, key.service, key.scopes]);
}
