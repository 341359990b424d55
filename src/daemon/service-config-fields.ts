import type { FieldSpec, ObjectSpec } from './config-reader.ts';
import type { ServiceConfig } from './service-config.ts';

/** Keys of the document itself, the legacy ones included. */
export interface TopLevel {
  logLevel: number;
  logPath: string;
  cacheType: string;
  registryCacheDir: string;
  registryCacheSizeGB: number;
  credentialFilePath: string;
  ioEngine: number;
  enableAudit: boolean;
  auditPath: string;
  enableThread: boolean;
  registryFsVersion: string;
  userAgent: string;
}

const text = (fallback: string): FieldSpec<string> => ({ type: 'string', fallback });
const flag = (fallback: boolean): FieldSpec<boolean> => ({ type: 'boolean', fallback });

function count(fallback: number, max = Number.MAX_SAFE_INTEGER): FieldSpec<number> {
  const holds = (value: number): boolean => value >= 0 && value <= max;
  return {
    type: 'integer',
    fallback,
    accepts: { what: `an integer from 0 to ${max}`, holds },
  };
}

function oneOf(fallback: string, values: readonly string[]): FieldSpec<string> {
  const what = `one of ${values.filter((value) => value !== '').join(', ')}`;
  return { type: 'string', fallback, accepts: { what, holds: (value) => values.includes(value) } };
}

function refillSize(fallback: number): FieldSpec<number> {
  const what = 'a power of two of at least 4096';
  const holds = (value: number): boolean => value >= 4096 && Number.isInteger(Math.log2(value));
  return { type: 'integer', fallback, accepts: { what, holds } };
}

const optionalText: FieldSpec<string | null> = { type: 'string', fallback: null };
const CACHE_TYPES = ['file', 'ocf', 'download'];
const CACHE_DIR = '/opt/overlaybd/registry_cache';

export const topLevelSpec: ObjectSpec<TopLevel> = {
  logLevel: count(1),
  logPath: text('/var/log/overlaybd.log'),
  cacheType: oneOf('file', CACHE_TYPES),
  registryCacheDir: text(CACHE_DIR),
  registryCacheSizeGB: count(4),
  credentialFilePath: text('/opt/overlaybd/cred.json'),
  ioEngine: count(0, 2),
  enableAudit: flag(true),
  auditPath: text('/var/log/overlaybd-audit.log'),
  enableThread: flag(false),
  registryFsVersion: text('v2'),
  userAgent: text(''),
};

type SectionSpecs = {
  [Key in SectionKey]: ObjectSpec<ServiceConfig[Key]>;
};

type SectionKey = Exclude<keyof ServiceConfig, keyof TopLevel | 'ignored'>;

export const sectionSpecs: SectionSpecs = {
  logConfig: {
    logLevel: count(1),
    logPath: text(''),
    logSizeMB: count(10),
    logRotateNum: count(3),
  },
  cacheConfig: {
    cacheType: oneOf('', ['', ...CACHE_TYPES]),
    cacheDir: text(CACHE_DIR),
    cacheSizeGB: count(4),
    refillSize: refillSize(262_144),
    blockSize: count(65_536),
  },
  gzipCacheConfig: {
    enable: flag(false),
    cacheDir: text('/opt/overlaybd/gzip_cache'),
    cacheSizeGB: count(4),
    refillSize: refillSize(1_048_576),
  },
  credentialConfig: {
    mode: oneOf('', ['', 'file', 'http', 'https', 'uds']),
    path: text(''),
    timeout: count(1),
    client_cert_path: text(''),
    client_key_path: text(''),
    server_ca_path: text(''),
  },
  download: {
    enable: flag(false),
    delay: count(300),
    delayExtra: count(30),
    maxMBps: count(100),
    tryCnt: count(5),
    blockSize: count(262_144),
  },
  p2pConfig: { enable: flag(false), address: text('http://localhost:9731/accelerator') },
  exporterConfig: {
    enable: flag(false),
    uriPrefix: text('/metrics'),
    port: count(9863, 65_535),
    updateInterval: count(60_000_000),
  },
  prefetchConfig: { concurrency: count(16) },
  certConfig: { certFile: text(''), keyFile: text('') },
  serviceConfig: { enable: flag(false), address: text('http://127.0.0.1:9862') },
  replaybd: {
    cacheDir: optionalText,
    quotaGB: positive('number'),
    traceDir: optionalText,
    readDeadlineMs: positive('integer'),
    controlSocket: optionalText,
  },
};

function positive(type: 'integer' | 'number'): FieldSpec<number | null> {
  const holds = (value: number | null): boolean => value !== null && value > 0;
  return { type, fallback: null, accepts: { what: `a positive ${type}`, holds } };
}
