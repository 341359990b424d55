import { execFile } from 'node:child_process';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { ReplaybdError } from '../base/errors.ts';
import { matchAuths, normaliseKey } from './auths.ts';
import { isObject, parseJsonObject } from './collect.ts';
import type { CredentialProvider, Credentials } from './credentials.ts';
import { DOCKER_HUB_HOST, type Repository } from './reference.ts';
import { WatchedJson } from './watched-json.ts';

const HUB_KEY = 'https://index.docker.io/v1/';
const HELPER_TIMEOUT_MS = 10_000;
const HELPER_OUTPUT_MAX = 64 * 1024;

/** Where Docker keeps its configuration: `$DOCKER_CONFIG` or `~/.docker`. */
export function dockerConfigPath(env: NodeJS.ProcessEnv = process.env): string {
  return join(env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json');
}

/**
 * Docker's config.json: `credHelpers` for a host, then `auths`, then `credsStore`, as its command
 * line resolves them. A missing file means anonymous.
 */
export function dockerCredentials(path = dockerConfigPath()): CredentialProvider {
  const file = new WatchedJson(path);
  return {
    async lookup(repository) {
      const config = await file.read();
      if (config === null) return null;
      const server = repository.host === DOCKER_HUB_HOST ? HUB_KEY : repository.host;
      const helper = helperFor(config.credHelpers, server);
      if (helper !== null) return askHelper(helper, server);
      const fromFile = fromAuths(config.auths, repository);
      if (fromFile !== null) return fromFile;
      const { credsStore } = config;
      const hasStore = typeof credsStore === 'string' && credsStore !== '';
      return hasStore ? askHelper(credsStore, server) : null;
    },
  };
}

function fromAuths(auths: unknown, repository: Repository): Credentials | null {
  const hosts =
    repository.host === DOCKER_HUB_HOST
      ? ['index.docker.io', 'docker.io', DOCKER_HUB_HOST]
      : [repository.host];
  for (const host of hosts) {
    const found = matchAuths(auths, host, repository.name);
    if (found !== null) return found;
  }
  return null;
}

function helperFor(helpers: unknown, server: string): string | null {
  if (!isObject(helpers)) return null;
  const wanted = normaliseKey(server);
  for (const [key, name] of Object.entries(helpers)) {
    const fits = normaliseKey(key) === wanted || (server === HUB_KEY && key === 'docker.io');
    if (fits && typeof name === 'string' && name !== '') return name;
  }
  return null;
}

/**
 * Runs `docker-credential-<name> get` with the server on standard input. The helper's own words are
 * not repeated: they may hold secrets.
 */
async function askHelper(name: string, server: string): Promise<Credentials | null> {
  if (!/^[\w.-]{1,64}$/.test(name)) throw helperFailed('(unusable name)', 'a plain name');
  const program = `docker-credential-${name}`;
  const output = await runHelper(program, server);
  if (output === null) return null;
  const answer = parseJsonObject(Buffer.from(output));
  const { Username: username, Secret: secret } = answer ?? {};
  if (typeof username !== 'string' || typeof secret !== 'string') {
    throw helperFailed(program, 'JSON with Username and Secret');
  }
  if (username === '<token>') return { kind: 'identity-token', token: secret };
  return username === '' ? null : { kind: 'password', username, password: secret };
}

/** What the helper printed; null when it knows no credentials for the server. */
function runHelper(program: string, server: string): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const options = { timeout: HELPER_TIMEOUT_MS, maxBuffer: HELPER_OUTPUT_MAX };
    const child = execFile(program, ['get'], options, (error, stdout) => {
      if (error === null) resolve(stdout);
      // The helper protocol reports this case in words, with exit status 1.
      else if (/credentials not found/i.test(stdout)) resolve(null);
      else reject(helperFailed(program, 'it to run and exit with 0 within 10 seconds'));
    });
    // A helper that does not read its input closes the pipe; its exit status tells the rest.
    child.stdin?.on('error', () => undefined);
    child.stdin?.end(`${server}\n`);
  });
}

function helperFailed(program: string, expected: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_CREDENTIAL_HELPER',
    `${program}: expected ${expected}, found otherwise. Check credHelpers and credsStore.`,
    { errno: 'EACCES' },
  );
}
