import { closestWord } from '../base/closest.ts';
import { readConfigFile } from '../base/config-file.ts';
import { ReplaybdError } from '../base/errors.ts';
import { JsonObject } from '../base/json-object.ts';
import { fetchLimits, serviceConfigLimits } from '../base/limits.ts';
import { LOG_LEVELS, type LogLevel } from '../base/log-levels.ts';
import { PACKED_MODES, type PackedMode } from '../prefetch/packed-rule.ts';
import { TRACE_FROM, type TraceFrom } from './trace-from.ts';
import { SERVICE_KEYS, type ServiceKey } from './service-config-keys.ts';

/** Where overlaybd keeps its own service configuration. */
export const DEFAULT_SERVICE_CONFIG_PATH = '/etc/overlaybd/overlaybd.json';

const CREDENTIAL_MODES = ['file', 'http', 'https', 'uds'] as const;
const CREDENTIAL_FILE = '/opt/overlaybd/cred.json';
const PEER_ADDRESS = 'http://localhost:9731/accelerator';
const CACHE_SIZE_GB = 4;
const CACHE_TYPES = ['file', 'ocf', 'download'] as const;
const AUDIT_FILE = '/var/log/overlaybd-audit.log';
const EXPORTER_PORT = 9863;
const EXPORTER_PATH = '/metrics';
const SNAPSHOT_ADDRESS = 'http://127.0.0.1:9862';
const LOOPBACK = '127.0.0.1';
const PORT_MAX = 65_535;
const MODES = ['off', 'record', 'replay', 'auto'] as const;
/** By overlaybd's number; a higher one lets nothing through but its audit log. */
const LEVELS: readonly LogLevel[] = ['debug', 'info', 'warn', 'error', 'fatal'];

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
  /** Null where the program's own default holds. */
  readonly logConfig: Readonly<{ level: LogLevel | null; path: string | null }>;
  /** Where the audit log goes; null when there is none. */
  readonly auditPath: string | null;
  readonly exporterConfig: ExporterConfig;
  /** overlaybd's own API, which has one call: /snapshot. */
  readonly serviceConfig: Readonly<{ enable: boolean; address: string }>;
  readonly replaybd: ReplaybdConfig;
  /** Keys of the file that have no effect here. */
  readonly ignored: readonly IgnoredKey[];
}

export interface IgnoredKey {
  /** JSON path. */
  readonly key: string;
  readonly reason: string;
}

export interface ExporterConfig {
  readonly enable: boolean;
  /** An IP address of this machine. */
  readonly address: string;
  readonly port: number;
  /** The whole path of the metrics. */
  readonly uriPrefix: string;
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
  /** Requests under way at once, of each lane. */
  readonly demandConcurrency: number | null;
  readonly prefetchConcurrency: number | null;
  /** What a device does that does not say. */
  readonly mode: (typeof MODES)[number] | null;
  /** MiB that a replay may fetch. */
  readonly budgetMB: number | null;
  /** Where a trace is looked for that nobody named. */
  readonly traceFrom: TraceFrom | null;
  /** Whether, below what coverage and beyond what age mode auto records a trace anew. */
  readonly renewTraces: boolean | null;
  readonly coverageMin: number | null;
  readonly traceMaxAgeDays: number | null;
  /** Where spans are sent. */
  readonly otlpEndpoint: string | null;
  /** Whether replays read hot blobs. */
  readonly packed: PackedMode | null;
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
 * ERR_CONFIG_TYPE, and ERR_CONFIG_KEY for an unknown key of our own section.
 */
export function parseServiceConfig(text: string, name: string): ServiceConfig {
  const root = JsonObject.parse(text, name);
  const p2p = root.object('p2pConfig');
  const certificate = root.object('certConfig');
  const service = root.object('serviceConfig');
  const config = {
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
    logConfig: logConfig(root),
    auditPath: auditPath(root),
    exporterConfig: exporterConfig(root),
    serviceConfig: {
      enable: service?.boolean('enable') ?? false,
      address: service?.string('address') || SNAPSHOT_ADDRESS,
    },
    replaybd: replaybdConfig(root.object('replaybd')),
  };
  return freezeDeeply({ ...config, ignored: ignoredKeys(root, name) });
}

function replaybdConfig(own: JsonObject | null): ReplaybdConfig {
  const concurrency = (key: string, max: number) =>
    own?.has(key) === true ? own.natural(key, max, { min: 1, max }) : null;
  return {
    cacheDir: own?.string('cacheDir') || null,
    quotaGB: own?.positive('quotaGB') ?? null,
    traceDir: own?.string('traceDir') || null,
    readDeadlineMs: own?.positive('readDeadlineMs') ?? null,
    demandConcurrency: concurrency('demandConcurrency', fetchLimits.demandConcurrencyMax),
    prefetchConcurrency: concurrency('prefetchConcurrency', fetchLimits.prefetchConcurrencyMax),
    mode: own?.word('mode', MODES) || null,
    budgetMB: own?.positive('budgetMB') ?? null,
    traceFrom: own?.word('traceFrom', TRACE_FROM) || null,
    renewTraces: own?.has('renewTraces') === true ? own.boolean('renewTraces') : null,
    coverageMin: own?.share('coverageMin') ?? null,
    traceMaxAgeDays: own?.positive('traceMaxAgeDays') ?? null,
    otlpEndpoint: own?.httpUrl('otlpEndpoint') || null,
    packed: own?.word('packed', PACKED_MODES) || null,
  };
}

/** Ours, then the section's, then the legacy keys'. */
function logConfig(root: JsonObject): ServiceConfig['logConfig'] {
  const own = root.object('replaybd');
  const section = root.object('logConfig');
  const legacy = level(root, 'logLevel');
  const chosen = section === null ? null : level(section, 'logLevel');
  const paths = [own?.string('logPath'), section?.string('logPath'), root.string('logPath')];
  return {
    level: own?.word('logLevel', LOG_LEVELS) || (chosen ?? legacy),
    path: paths.find((path) => path !== undefined && path !== '') ?? null,
  };
}

function level(object: JsonObject, key: string): LogLevel | null {
  if (!object.has(key)) return null;
  return LEVELS[object.natural(key, 1)] ?? 'silent';
}

function auditPath(root: JsonObject): string | null {
  const path = root.string('auditPath') || AUDIT_FILE;
  return root.boolean('enableAudit', true) ? path : null;
}

function exporterConfig(root: JsonObject): ExporterConfig {
  const section = root.object('exporterConfig');
  return {
    enable: section?.boolean('enable') ?? false,
    address: root.object('replaybd')?.string('exporterAddress') || LOOPBACK,
    port: section?.natural('port', EXPORTER_PORT, { max: PORT_MAX }) ?? EXPORTER_PORT,
    uriPrefix: section?.urlPath('uriPrefix') || EXPORTER_PATH,
  };
}

/**
 * The keys that are in the file but have no effect. Their types are checked nevertheless: a file
 * that overlaybd would refuse is not one that was meant.
 */
function ignoredKeys(root: JsonObject, name: string): IgnoredKey[] {
  const known: IgnoredKey[] = [];
  for (const key of SERVICE_KEYS) {
    if (key.effect === 'honoured' || !isPresent(root, key)) continue;
    known.push({ key: key.path, reason: key.note });
  }
  const unknown = root.ignored.map((path) => unknownKey(path, name));
  return [...known, ...unknown];
}

/** Whether the file has the key, with a value of its type. */
function isPresent(root: JsonObject, { path, type }: ServiceKey): boolean {
  const [first = '', second] = path.split('.');
  const object = second === undefined ? root : root.object(first);
  const key = second ?? first;
  if (object?.has(key) !== true) return false;
  if (type === 'boolean') object.boolean(key);
  else if (type === 'natural') object.natural(key, 0);
  else object.string(key);
  return true;
}

function unknownKey(path: string, name: string): IgnoredKey {
  const near = closestWord(
    path,
    SERVICE_KEYS.map((key) => key.path),
  );
  const suggestion = near === null ? '' : `; ${near} is one`;
  if (!path.startsWith('replaybd.')) {
    return { key: path, reason: `no key of overlaybd or replaybd${suggestion}` };
  }
  const own = SERVICE_KEYS.filter((key) => key.path.startsWith('replaybd.'));
  throw new ReplaybdError(
    'ERR_CONFIG_KEY',
    `${name}: $.${path}: expected one of ${own.map((key) => key.path).join(', ')}${suggestion}.`,
  );
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
