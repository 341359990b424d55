import { readConfigFile } from '../base/config-file.ts';
import { JsonObject } from '../base/json-object.ts';
import { serviceConfigLimits } from '../base/limits.ts';

/** Where overlaybd keeps its own service configuration. */
export const DEFAULT_SERVICE_CONFIG_PATH = '/etc/overlaybd/overlaybd.json';

const CREDENTIAL_MODES = ['file', 'http', 'https', 'uds'] as const;
const CREDENTIAL_FILE = '/opt/overlaybd/cred.json';
const PEER_ADDRESS = 'http://localhost:9731/accelerator';
const CACHE_SIZE_GB = 4;
const CACHE_TYPES = ['file', 'ocf', 'download'] as const;

/**
 * What has an effect here of overlaybd's global configuration, under its own key names, defaults
 * filled in and its legacy keys resolved (docs of overlaybd: overlaybd.json; its config.h for the
 * defaults). Frozen.
 */
export interface ServiceConfig {
  /** Of the cache on disk, in GiB. */
  readonly cacheSizeGB: number;
  readonly credentialConfig: CredentialConfig;
  readonly p2pConfig: Readonly<{ enable: boolean; address: string }>;
  /** Client TLS pair for the registry. */
  readonly certConfig: Readonly<{ certFile: string; keyFile: string }>;
  /** '' when not set: the program then says its own name and version. */
  readonly userAgent: string;
  readonly replaybd: ReplaybdConfig;
  /** JSON paths of keys that have no effect here. */
  readonly ignored: readonly string[];
}

export type CredentialMode = (typeof CREDENTIAL_MODES)[number];

export interface CredentialConfig {
  readonly mode: CredentialMode;
  readonly path: string;
  /** Seconds. */
  readonly timeout: number;
  readonly client_cert_path: string;
  readonly client_key_path: string;
  readonly server_ca_path: string;
}

/** What overlaybd has no key for; null where the program's own default holds. */
export interface ReplaybdConfig {
  /** Replaces cacheConfig.cacheDir: the two caches differ in layout. */
  readonly cacheDir: string | null;
  /** Replaces cacheConfig.cacheSizeGB. */
  readonly quotaGB: number | null;
  readonly traceDir: string | null;
  readonly readDeadlineMs: number | null;
}

/**
 * Reads and parses a configuration file. Errors: those of parseServiceConfig, ERR_CONFIG_READ,
 * ERR_CONFIG_SIZE.
 */
export async function loadServiceConfig(path: string): Promise<ServiceConfig> {
  return parseServiceConfig(await readConfigFile(path, serviceConfigLimits.fileBytesMax), path);
}

/**
 * Parses a configuration; `name` is the file's. Errors name the JSON path: ERR_CONFIG_JSON,
 * ERR_CONFIG_TYPE.
 */
export function parseServiceConfig(text: string, name: string): ServiceConfig {
  const root = JsonObject.parse(text, name);
  const p2p = root.object('p2pConfig');
  const certificate = root.object('certConfig');
  const own = root.object('replaybd');
  return freezeDeeply({
    cacheSizeGB: cacheSizeGB(root),
    credentialConfig: credentialConfig(root),
    p2pConfig: {
      enable: p2p?.boolean('enable') ?? false,
      address: p2p?.string('address', PEER_ADDRESS) ?? PEER_ADDRESS,
    },
    certConfig: {
      certFile: certificate?.string('certFile') ?? '',
      keyFile: certificate?.string('keyFile') ?? '',
    },
    userAgent: root.string('userAgent'),
    replaybd: {
      cacheDir: own?.string('cacheDir') || null,
      quotaGB: own?.positive('quotaGB') ?? null,
      traceDir: own?.string('traceDir') || null,
      readDeadlineMs: own?.positive('readDeadlineMs') ?? null,
    },
    ignored: root.ignored,
  });
}

/** The section counts where it has a type; else the legacy key does. */
function cacheSizeGB(root: JsonObject): number {
  const legacy = root.natural('registryCacheSizeGB', CACHE_SIZE_GB);
  const section = root.object('cacheConfig');
  const size = section?.natural('cacheSizeGB', CACHE_SIZE_GB) ?? legacy;
  return (section?.word('cacheType', CACHE_TYPES) ?? '') === '' ? legacy : size;
}

/** Likewise, with the mode. */
function credentialConfig(root: JsonObject): CredentialConfig {
  const legacy = root.string('credentialFilePath', CREDENTIAL_FILE);
  const section = root.object('credentialConfig');
  const mode = section?.word('mode', CREDENTIAL_MODES) ?? '';
  const path = section?.string('path') ?? '';
  return {
    mode: mode === '' ? 'file' : mode,
    path: mode === '' ? legacy : path,
    timeout: section?.natural('timeout', 1) ?? 1,
    client_cert_path: section?.string('client_cert_path') ?? '',
    client_key_path: section?.string('client_key_path') ?? '',
    server_ca_path: section?.string('server_ca_path') ?? '',
  };
}

function freezeDeeply<Value extends object>(value: Value): Value {
  for (const member of Object.values(value) as unknown[]) {
    if (typeof member === 'object' && member !== null) freezeDeeply(member);
  }
  return Object.freeze(value);
}
