import { registryLimits } from '../base/limits.ts';
import { parseChallenges, type Challenge } from './challenge.ts';
import type { CredentialProvider } from './credentials.ts';
import { publicUrl, RegistryError } from './errors.ts';
import type { Repository } from './reference.ts';
import { Remembered } from './remembered.ts';
import type { TokenService } from './token.ts';

/** What a request wants to do, which decides the scope of its token. */
export interface Access {
  repository: Repository;
  actions: 'pull' | 'pull,push' | 'pull,push,delete';
  /** Another repository to read from as well (a cross-repository mount). */
  mountFrom?: string;
}

/** How a repository authenticates, learned from its first challenge. */
type Scheme =
  { kind: 'basic' } | { kind: 'bearer'; realm: URL; service: string; pullScope: string | null };

export interface AuthorizerOptions {
  credentials: CredentialProvider;
  tokens: TokenService;
  /** Whether a token server may be talked to in plain HTTP. */
  allowsPlainHttp: (host: string) => boolean;
}

/**
 * Knows what to put into Authorization. Challenges are remembered by repository, so after the
 * first one every request carries its token at once.
 */
export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #schemes = new Remembered<Scheme>(registryLimits.rememberedMax);

  constructor(options: AuthorizerOptions) {
    this.#options = options;
  }

  /** The header for a request; null while no challenge of the repository is known. */
  async authorization(access: Access): Promise<string | null> {
    const scheme = this.#schemes.get(keyOf(access.repository));
    return scheme === undefined ? null : this.#obtain(access, scheme);
  }

  /**
   * The header to try after `rejected` was refused with `challenge` (a WWW-Authenticate header).
   * ERR_REGISTRY_AUTH when there is nothing else to try.
   */
  async renew(access: Access, challenge: string | null, rejected: string | null): Promise<string> {
    const scheme = this.#readChallenge(access, challenge ?? '');
    this.#schemes.set(keyOf(access.repository), scheme);
    if (scheme.kind === 'bearer' && rejected !== null) {
      this.#options.tokens.forget(this.#tokenKey(access, scheme), rejected);
    }
    const authorization = await this.#obtain(access, scheme);
    if (authorization === rejected) {
      throw refused(access.repository, 'the credentials were refused');
    }
    return authorization;
  }

  async #obtain(access: Access, scheme: Scheme): Promise<string> {
    const { repository } = access;
    const lookUp = () => this.#options.credentials.lookup(repository);
    if (scheme.kind === 'bearer') {
      return this.#options.tokens.bearer(this.#tokenKey(access, scheme), lookUp);
    }
    const credentials = await lookUp();
    if (credentials?.kind !== 'password') {
      throw refused(repository, 'it wants a user name and a password and none is configured');
    }
    return basicAuthorization(credentials.username, credentials.password);
  }

  #tokenKey(access: Access, scheme: Extract<Scheme, { kind: 'bearer' }>) {
    return { realm: scheme.realm, service: scheme.service, scopes: scopesOf(access, scheme) };
  }

  #readChallenge(access: Access, text: string): Scheme {
    const challenges = parseChallenges(text);
    const bearer = challenges.find((challenge) => challenge.scheme === 'bearer');
    if (bearer !== undefined) return this.#readBearer(access, bearer);
    if (challenges.some((challenge) => challenge.scheme === 'basic')) return { kind: 'basic' };
    throw refused(access.repository, 'it offers neither Bearer nor Basic authentication');
  }

  #readBearer(access: Access, challenge: Challenge): Scheme {
    const { repository } = access;
    const realm = URL.parse(challenge.parameters.get('realm') ?? '');
    if (realm === null || !/^https?:$/.test(realm.protocol) || realm.username !== '') {
      throw refused(repository, 'its challenge names no usable token server (realm)');
    }
    const registryIsPlain = repository.origin.startsWith('http:');
    if (realm.protocol === 'http:' && !registryIsPlain) {
      if (!this.#options.allowsPlainHttp(realm.host)) {
        throw refused(repository, `its token server ${publicUrl(realm)} has no TLS`);
      }
    }
    const service = challenge.parameters.get('service') ?? '';
    const pullScope =
      access.actions === 'pull' ? (challenge.parameters.get('scope') ?? null) : null;
    return { kind: 'bearer', realm, service, pullScope };
  }
}

/** A Basic Authorization header (RFC 7617). */
export function basicAuthorization(username: string, password: string): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** Reading trusts the scope the registry asked for; writing needs more than its challenge said. */
function scopesOf(access: Access, scheme: Extract<Scheme, { kind: 'bearer' }>): string[] {
  const { actions, mountFrom, repository } = access;
  const own = `repository:${repository.name}:${actions}`;
  const scope = actions === 'pull' ? (scheme.pullScope ?? own) : own;
  return mountFrom === undefined ? [scope] : [scope, `repository:${mountFrom}:pull`];
}

function refused(repository: Repository, why: string): RegistryError {
  return new RegistryError(
    'ERR_REGISTRY_AUTH',
    `${repository.origin}/v2/${repository.name}: expected access, found that ${why}. ` +
      'Check the credentials configured for this repository.',
    { errno: 'EACCES', status: 401 },
  );
}

function keyOf(repository: Repository): string {
  return `${repository.origin}/${repository.name}`;
}
