import { readFile, stat } from 'node:fs/promises';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { serviceConfigLimits } from '../base/limits.ts';
import { ConfigReader } from './config-reader.ts';
import { sectionSpecs, topLevelSpec, type Sections } from './service-config-fields.ts';

/** Where overlaybd keeps its own service configuration. */
export const DEFAULT_SERVICE_CONFIG_PATH = '/etc/overlaybd/overlaybd.json';

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

export interface CredentialConfig {
  /** 'file', 'http', 'https' or 'uds'. */
  readonly mode: string;
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

/** Reads and parses a configuration file. Throws ERR_CONFIG, also when it cannot be read. */
export async function loadServiceConfig(path: string): Promise<ServiceConfig> {
  try {
    const { size } = await stat(path);
    if (size > serviceConfigLimits.fileBytesMax) throw unreadable(path, `${size} bytes`);
    return parseServiceConfig(await readFile(path, 'utf8'), path);
  } catch (error) {
    if (error instanceof ReplaybdError) throw error;
    throw unreadable(path, codeOf(error));
  }
}

/** Parses a configuration; `name` is the file's. Throws ERR_CONFIG naming the JSON path. */
export function parseServiceConfig(text: string, name: string): ServiceConfig {
  const reader = new ConfigReader(name);
  const document = reader.document(text);
  const sections = Object.keys(sectionSpecs);
  const top = reader.fields(document, topLevelSpec, { path: '', sections });
  const { cacheConfig, credentialConfig, ...section } = readSections(reader, document);
  return freezeDeeply({
    ...section,
    cacheSizeGB: cacheConfig.cacheType === '' ? top.registryCacheSizeGB : cacheConfig.cacheSizeGB,
    credentialConfig:
      credentialConfig.mode === ''
        ? { ...credentialConfig, mode: 'file', path: top.credentialFilePath }
        : credentialConfig,
    userAgent: top.userAgent,
    ignored: [...reader.ignored],
  });
}

function readSections(reader: ConfigReader, document: Record<string, unknown>): Sections {
  const { cacheConfig, credentialConfig, p2pConfig, certConfig, replaybd } = sectionSpecs;
  return {
    cacheConfig: reader.sectionFields(document, 'cacheConfig', cacheConfig),
    credentialConfig: reader.sectionFields(document, 'credentialConfig', credentialConfig),
    p2pConfig: reader.sectionFields(document, 'p2pConfig', p2pConfig),
    certConfig: reader.sectionFields(document, 'certConfig', certConfig),
    replaybd: reader.sectionFields(document, 'replaybd', replaybd),
  };
}

function freezeDeeply<Value extends object>(value: Value): Value {
  for (const member of Object.values(value) as unknown[]) {
    if (typeof member === 'object' && member !== null) freezeDeeply(member);
  }
  return Object.freeze(value);
}

function unreadable(path: string, found: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_CONFIG',
    `${path}: expected a readable file of at most ${serviceConfigLimits.fileBytesMax} bytes, ` +
      `found ${found}.`,
    { errno: 'EINVAL' },
  );
}
