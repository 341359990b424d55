import { randomBytes, timingSafeEqual, createHash } from 'node:crypto';
import { errorReply, jsonReply, type Reply } from './reply.ts';

/** Who may use the registry. */
export interface AuthOptions {
  kind: 'basic' | 'bearer';
  username: string;
  password: string;
  /** Lifetime of a token in seconds; default 300. */
  tokenSeconds?: number;
  /** Tokens to pull are given to anybody. */
  anonymousPull?: boolean;
}

interface IssuedToken {
  scopes: ReadonlySet<string>;
  expiresAtMs: number;
}

const TOKENS_MAX = 10_000;
const SERVICE = 'replaybd-registry';

/** Checks Authorization, and is the token server of a registry that wants Bearer tokens. */
export class Guard {
  readonly #options: AuthOptions;
  readonly #tokens = new Map<string, IssuedToken>();

  constructor(options: AuthOptions) {
    this.#options = options;
  }

  /** Makes every token issued so far worthless, as a restarted token server does. */
  revokeTokens(): void {
    this.#tokens.clear();
  }

  /** Null when the request may pass; otherwise the challenge. */
  check(
    authorization: string | undefined,
    request: { origin: string; repository: string | null; isWrite: boolean; mountFrom: string },
  ): Reply | null {
    if (this.#options.kind === 'basic') {
      if (this.#isUser(authorization)) return null;
      return challenge('Basic realm="replaybd registry"');
    }
    const actions = request.isWrite ? 'pull,push' : 'pull';
    const scope = request.repository === null ? '' : `repository:${request.repository}:${actions}`;
    const mountScope = request.mountFrom === '' ? '' : `repository:${request.mountFrom}:pull`;
    if (this.#tokenAllows(authorization, [scope, mountScope])) return null;
    const scopeText = scope === '' ? '' : `,scope="${scope}"`;
    return challenge(`Bearer realm="${request.origin}/token",service="${SERVICE}"${scopeText}`);
  }

  /** Answers the token endpoint. */
  issue(authorization: string | undefined, query: URLSearchParams): Reply {
    const scopes = query.getAll('scope').flatMap((scope) => scope.split(' '));
    const isPullOnly = scopes.every((scope) => scope.endsWith(':pull'));
    const isAllowed =
      this.#isUser(authorization) ||
      (authorization === undefined && this.#options.anonymousPull === true && isPullOnly);
    if (!isAllowed) return errorReply(401, 'UNAUTHORIZED');
    const token = randomBytes(24).toString('base64url');
    const lifetimeSeconds = this.#options.tokenSeconds ?? 300;
    const expiresAtMs = performance.now() + lifetimeSeconds * 1000;
    this.#tokens.set(token, { scopes: new Set(scopes.flatMap(withWeaker)), expiresAtMs });
    for (const oldest of this.#tokens.keys()) {
      if (this.#tokens.size <= TOKENS_MAX) break;
      this.#tokens.delete(oldest);
    }
    return jsonReply(200, { token, expires_in: lifetimeSeconds });
  }

  #tokenAllows(authorization: string | undefined, scopes: string[]): boolean {
    const token = this.#tokens.get(authorization?.replace(/^Bearer /, '') ?? '');
    if (token === undefined || performance.now() > token.expiresAtMs) return false;
    return scopes.every((scope) => scope === '' || token.scopes.has(scope));
  }

  #isUser(authorization: string | undefined): boolean {
    const { username, password } = this.#options;
    const expected = `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
    const [left, right] = [authorization ?? '', expected].map((text) => {
      return createHash('sha256').update(text).digest();
    });
    return left !== undefined && right !== undefined && timingSafeEqual(left, right);
  }
}

/** A token to push is good for pulling too. */
function withWeaker(scope: string): string[] {
  return scope.endsWith(':pull,push') ? [scope, scope.replace(/,push$/, '')] : [scope];
}

function challenge(header: string): Reply {
  return errorReply(401, 'UNAUTHORIZED', { 'www-authenticate': header });
}
