import { readFile, stat } from 'node:fs/promises';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { serviceConfigLimits } from '../base/limits.ts';
import { ConfigReader } from './config-reader.ts';
import { sectionSpecs, topLevelSpec } from './service-config-fields.ts';

/** Where overlaybd keeps its own service configuration. */
export const DEFAULT_SERVICE_CONFIG_PATH = '/etc/overlaybd/overlaybd.json';

/**
 * overlaybd's global configuration under its own key names, defaults filled in and its legacy keys
 * resolved (docs of overlaybd: overlaybd.json; its config.h for the defaults). Frozen.
 */
export interface ServiceConfig {
  readonly logConfig: LogConfig;
  readonly cacheConfig: CacheConfig;
  readonly gzipCacheConfig: GzipCacheConfig;
  readonly credentialConfig: CredentialConfig;
  readonly download: DownloadConfig;
  readonly p2pConfig: Readonly<{ enable: boolean; address: string }>;
  readonly exporterConfig: ExporterConfig;
  readonly prefetchConfig: Readonly<{ concurrency: number }>;
  /** Client TLS pair for the registry. */
  readonly certConfig: Readonly<{ certFile: string; keyFile: string }>;
  readonly serviceConfig: Readonly<{ enable: boolean; address: string }>;
  /** 0 psync, 1 libaio, 2 posix aio; for local layer files. */
  readonly ioEngine: number;
  readonly enableAudit: boolean;
  readonly auditPath: string;
  readonly enableThread: boolean;
  readonly registryFsVersion: string;
  /** '' when not set: the program then says its own name and version. */
  readonly userAgent: string;
  readonly replaybd: ReplaybdConfig;
  /** JSON paths of keys that mean nothing here. */
  readonly ignored: readonly string[];
}

export interface LogConfig {
  /** 0 debug, 1 info, 2 warning, 3 error, 4 fatal. */
  readonly logLevel: number;
  readonly logPath: string;
  readonly logSizeMB: number;
  readonly logRotateNum: number;
}

export interface CacheConfig {
  /** 'file', 'ocf' or 'download'. */
  readonly cacheType: string;
  readonly cacheDir: string;
  readonly cacheSizeGB: number;
  readonly refillSize: number;
  readonly blockSize: number;
}

export interface GzipCacheConfig {
  readonly enable: boolean;
  readonly cacheDir: string;
  readonly cacheSizeGB: number;
  readonly refillSize: number;
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

export interface DownloadConfig {
  readonly enable: boolean;
  /** Seconds. */
  readonly delay: number;
  readonly delayExtra: number;
  readonly maxMBps: number;
  readonly tryCnt: number;
  readonly blockSize: number;
}

export interface ExporterConfig {
  readonly enable: boolean;
  readonly uriPrefix: string;
  readonly port: number;
  /** Microseconds. */
  readonly updateInterval: number;
}

/** What overlaybd has no key for; null where the program's own default holds. */
export interface ReplaybdConfig {
  /** Replaces cacheConfig.cacheDir: the two caches differ in layout. */
  readonly cacheDir: string | null;
  /** Replaces cacheConfig.cacheSizeGB. */
  readonly quotaGB: number | null;
  readonly traceDir: string | null;
  readonly readDeadlineMs: number | null;
  readonly controlSocket: string | null;
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
  const {
    logLevel,
    logPath,
    cacheType,
    registryCacheDir,
    registryCacheSizeGB,
    credentialFilePath,
    ...own
  } = reader.fields(document, topLevelSpec, { path: '', sections });
  const section = readSections(reader, document);
  const { logConfig, cacheConfig, credentialConfig } = section;
  return freezeDeeply({
    ...own,
    ...section,
    logConfig: logConfig.logPath === '' ? { ...logConfig, logLevel, logPath } : logConfig,
    cacheConfig:
      cacheConfig.cacheType === ''
        ? {
            ...cacheConfig,
            cacheType,
            cacheDir: registryCacheDir,
            cacheSizeGB: registryCacheSizeGB,
          }
        : cacheConfig,
    credentialConfig:
      credentialConfig.mode === ''
        ? { ...credentialConfig, mode: 'file', path: credentialFilePath }
        : credentialConfig,
    ignored: [...reader.ignored],
  });
}

type Sections = Pick<ServiceConfig, keyof typeof sectionSpecs>;

function readSections(reader: ConfigReader, document: Record<string, unknown>): Sections {
  return {
    logConfig: reader.sectionFields(document, 'logConfig', sectionSpecs.logConfig),
    cacheConfig: reader.sectionFields(document, 'cacheConfig', sectionSpecs.cacheConfig),
    gzipCacheConfig: reader.sectionFields(
      document,
      'gzipCacheConfig',
      sectionSpecs.gzipCacheConfig,
    ),
    credentialConfig: reader.sectionFields(
      document,
      'credentialConfig',
      sectionSpecs.credentialConfig,
    ),
    download: reader.sectionFields(document, 'download', sectionSpecs.download),
    p2pConfig: reader.sectionFields(document, 'p2pConfig', sectionSpecs.p2pConfig),
    exporterConfig: reader.sectionFields(document, 'exporterConfig', sectionSpecs.exporterConfig),
    prefetchConfig: reader.sectionFields(document, 'prefetchConfig', sectionSpecs.prefetchConfig),
    certConfig: reader.sectionFields(document, 'certConfig', sectionSpecs.certConfig),
    serviceConfig: reader.sectionFields(document, 'serviceConfig', sectionSpecs.serviceConfig),
    replaybd: reader.sectionFields(document, 'replaybd', sectionSpecs.replaybd),
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
