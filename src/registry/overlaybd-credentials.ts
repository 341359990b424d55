import { readFileSync } from 'node:fs';
import type { Client } from 'undici';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { registryLimits } from '../base/limits.ts';
import { matchAuths } from './auths.ts';
import { isObject, parseJsonObject } from './collect.ts';
import type { CredentialProvider } from './credentials.ts';
import { publicUrl } from './errors.ts';
import { repositoryBlobUrl } from './reference.ts';
import { WatchedJson } from './watched-json.ts';

/** overlaybd.json's `credentialConfig`, key for key. */
export interface OverlaybdCredentialConfig {
  mode: 'file' | 'http' | 'https' | 'uds';
  /** A file, a URL or a socket, by mode. */
  path: string;
  /** Seconds; default 1. */
  timeout?: number;
  client_cert_path?: string;
  client_key_path?: string;
  server_ca_path?: string;
}

/** overlaybd.json's default `credentialFilePath`. */
export const OVERLAYBD_CREDENTIAL_FILE = '/opt/overlaybd/cred.json';

/**
 * The credentials overlaybd.json configures: `{"auths": {...}}` in a file, or from a server asked
 * with `?remote_url=<blob URL>` that answers `{"success": true, "data": {"auths": {...}}}`. No
 * matching entry means anonymous.
 */
export function overlaybdCredentials(config: OverlaybdCredentialConfig): CredentialProvider {
  if (config.mode === 'file') {
    const file = new WatchedJson(config.path);
    return {
      async lookup(repository) {
        const json = await file.read();
        return matchAuths(json?.auths, repository.host, repository.name);
      },
    };
  }
  return {
    async lookup(repository) {
      const answer = await askServer(config, repositoryBlobUrl(repository));
      return matchAuths(answer, repository.host, repository.name);
    },
  };
}

async function askServer(config: OverlaybdCredentialConfig, remoteUrl: string): Promise<unknown> {
  const url = serverUrl(config);
  url.searchParams.set('remote_url', remoteUrl);
  const timeoutMs = (config.timeout ?? 1) * 1000;
  // Few ask a server, and everybody would wait for its module.
  const { Client } = await import('undici');
  const client = new Client(url.origin, clientOptions(config, timeoutMs));
  try {
    const response = await client.request({
      method: 'GET',
      path: url.pathname + url.search,
      signal: AbortSignal.timeout(timeoutMs),
    });
    const chunks: Buffer[] = [];
    for await (const chunk of response.body) chunks.push(chunk as Buffer);
    const answer = parseJsonObject(Buffer.concat(chunks));
    const isGood = response.statusCode === 200 && answer?.success === true;
    if (!isGood || !isObject(answer.data)) {
      throw serverFailed(config, `status ${response.statusCode} without success`);
    }
    return answer.data.auths;
  } catch (error) {
    throw error instanceof ReplaybdError ? error : serverFailed(config, messageOf(error));
  } finally {
    await client.destroy();
  }
}

function serverUrl(config: OverlaybdCredentialConfig): URL {
  if (config.mode === 'uds') return new URL('http://localhost/auth');
  const url = URL.parse(config.path);
  if (url?.protocol === `${config.mode}:`) return url;
  throw serverFailed(config, `a path that is no ${config.mode}:// URL`);
}

function clientOptions(config: OverlaybdCredentialConfig, timeoutMs: number): Client.Options {
  const options: Client.Options = {
    allowH2: false,
    headersTimeout: timeoutMs,
    bodyTimeout: timeoutMs,
    maxResponseSize: registryLimits.answerBytesMax,
  };
  if (config.mode === 'uds') return { ...options, socketPath: config.path };
  if (config.mode === 'http') return options;
  const read = (path: string | undefined) =>
    path === undefined || path === '' ? undefined : readFileSync(path, 'utf8');
  const ca = read(config.server_ca_path);
  const cert = read(config.client_cert_path);
  const key = read(config.client_key_path);
  return {
    ...options,
    connect: {
      ...(ca === undefined ? {} : { ca }),
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
    },
  };
}

function serverFailed(config: OverlaybdCredentialConfig, found: string): ReplaybdError {
  const url = config.mode === 'uds' ? null : URL.parse(config.path);
  return new ReplaybdError(
    'ERR_CREDENTIAL_SERVER',
    `${url === null ? config.path : publicUrl(url)}: expected credentials, found ${found}. ` +
      'Check credentialConfig.',
    { errno: 'EACCES' },
  );
}
