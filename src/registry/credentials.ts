import type { Repository } from './reference.ts';

/** What a registry or its token server is told. An identity token is exchanged for a bearer one. */
export type Credentials =
  | { kind: 'password'; username: string; password: string }
  | { kind: 'identity-token'; token: string };

/** Looks credentials up. Null means anonymous; a source that cannot be read throws. */
export interface CredentialProvider {
  lookup(repository: Repository): Promise<Credentials | null>;
}

export const anonymous: CredentialProvider = { lookup: async () => null };

/** The first provider that knows the repository wins. */
export function firstOf(providers: readonly CredentialProvider[]): CredentialProvider {
  return {
    async lookup(repository) {
      for (const provider of providers) {
        const credentials = await provider.lookup(repository);
        if (credentials !== null) return credentials;
      }
      return null;
    },
  };
}

/** The same user name and password for one host, or for every host when `host` is null. */
export function fixedCredentials(
  host: string | null,
  username: string,
  password: string,
): CredentialProvider {
  const credentials: Credentials = { kind: 'password', username, password };
  return {
    lookup: async (repository) => (host === null || repository.host === host ? credentials : null),
  };
}
