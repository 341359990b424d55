/**
 * Every key of overlaybd's global configuration (its config.h), and of ours: what it does here, or
 * why it does nothing. docs/configuration.md says the same, word for word.
 */
export interface ServiceKey {
  /** JSON path, e.g. 'logConfig.logLevel'. */
  path: string;
  type: KeyType;
  effect: 'honoured' | 'ignored';
  /** The effect, or the reason why there is none. */
  note: string;
}

export type KeyType =
  'string' | 'boolean' | 'natural' | 'positive' | 'word' | 'urlPath' | 'httpUrl' | 'share';

const CACHE_FILES = 'the cache has a layout of its own, in `replaybd.cacheDir`';
const FETCH_UNITS = 'what is fetched follows from what is read and from the trace';
const WHOLE_LAYERS = 'layers are not downloaded whole: `replaybd.cacheDir` keeps what was read';
const ROTATION = 'rotation is left to the system: SIGHUP opens the file again';
const TURBO = 'TurboOCI layers are not served';
const OWN_THREADS = 'devices never wait for each other';

/** In the order of the documentation. */
export const SERVICE_KEYS: readonly ServiceKey[] = [
  honoured('credentialConfig.mode', 'word', '`file`, `http`, `https` or `uds`'),
  honoured('credentialConfig.path', 'string', 'the file, URL or socket'),
  honoured('credentialConfig.timeout', 'natural', 'seconds to wait for a credential server (1)'),
  honoured('credentialConfig.client_cert_path', 'string', 'shown to a server of mode `https`'),
  honoured('credentialConfig.client_key_path', 'string', 'the key of that certificate'),
  honoured('credentialConfig.server_ca_path', 'string', 'authority that server must be signed by'),
  honoured(
    'credentialFilePath',
    'string',
    'the file, where `credentialConfig.mode` is not set (`/opt/overlaybd/cred.json`)',
  ),
  honoured(
    'certConfig.certFile',
    'string',
    'client certificate for registries; `--client-cert` comes before it',
  ),
  honoured('certConfig.keyFile', 'string', 'its key; `--client-key` comes before it'),
  honoured('p2pConfig.enable', 'boolean', 'blobs are asked of `<address>/<blob URL>`'),
  honoured(
    'p2pConfig.address',
    'string',
    'a peer that does not answer is left alone for 30 s (`http://localhost:9731/accelerator`)',
  ),
  honoured('userAgent', 'string', 'sent to registries'),
  honoured(
    'cacheConfig.cacheType',
    'word',
    '`file`, `ocf` or `download`: all the same here, but `cacheConfig.cacheSizeGB` counts',
  ),
  honoured(
    'cacheConfig.cacheSizeGB',
    'natural',
    "the cache's quota in GiB, where `cacheConfig.cacheType` is set",
  ),
  honoured(
    'registryCacheSizeGB',
    'natural',
    'the same, where `cacheConfig.cacheType` is not set (4)',
  ),
  honoured(
    'logConfig.logLevel',
    'natural',
    'daemon: 0 debug, 1 info, 2 warn, 3 error, 4 fatal, more: silent',
  ),
  honoured('logConfig.logPath', 'string', 'daemon: the log goes to this file, not standard error'),
  honoured('logLevel', 'natural', 'the same as `logConfig.logLevel`, where that is not set'),
  honoured('logPath', 'string', 'the same as `logConfig.logPath`, where that is not set'),
  honoured('enableAudit', 'boolean', 'daemon: write the [audit log](#audit-log) (true)'),
  honoured('auditPath', 'string', 'daemon: where to (`/var/log/overlaybd-audit.log`)'),
  honoured('exporterConfig.enable', 'boolean', 'daemon: serve metrics to Prometheus (false)'),
  honoured('exporterConfig.port', 'natural', 'at this port (9863)'),
  honoured('exporterConfig.uriPrefix', 'urlPath', 'under this path (`/metrics`)'),
  honoured('serviceConfig.enable', 'boolean', "daemon: serve overlaybd's `/snapshot` (false)"),
  honoured('serviceConfig.address', 'string', 'at this URL (`http://127.0.0.1:9862`)'),

  ignored('cacheConfig.cacheDir', 'string', CACHE_FILES),
  ignored('cacheConfig.refillSize', 'natural', FETCH_UNITS),
  ignored('cacheConfig.blockSize', 'natural', CACHE_FILES),
  ignored('registryCacheDir', 'string', CACHE_FILES),
  ignored('cacheType', 'string', 'there is one kind of cache'),
  ignored('gzipCacheConfig.enable', 'boolean', TURBO),
  ignored('gzipCacheConfig.cacheDir', 'string', TURBO),
  ignored('gzipCacheConfig.cacheSizeGB', 'natural', TURBO),
  ignored('gzipCacheConfig.refillSize', 'natural', TURBO),
  ignored('download.enable', 'boolean', WHOLE_LAYERS),
  ignored('download.delay', 'natural', WHOLE_LAYERS),
  ignored('download.delayExtra', 'natural', WHOLE_LAYERS),
  ignored('download.maxMBps', 'natural', WHOLE_LAYERS),
  ignored('download.tryCnt', 'natural', WHOLE_LAYERS),
  ignored('download.blockSize', 'natural', WHOLE_LAYERS),
  ignored(
    'prefetchConfig.concurrency',
    'natural',
    'prefetch is paced by bytes under way; `replaybd.prefetchConcurrency` bounds its requests',
  ),
  ignored('ioEngine', 'natural', 'local files are mapped into memory'),
  ignored('enableThread', 'boolean', OWN_THREADS),
  ignored('workpoolSize', 'natural', OWN_THREADS),
  ignored('registryFsVersion', 'string', 'there is one registry client'),
  ignored('logConfig.logSizeMB', 'natural', ROTATION),
  ignored('logConfig.logRotateNum', 'natural', ROTATION),
  ignored(
    'exporterConfig.updateInterval',
    'natural',
    'metrics are computed when they are asked for',
  ),

  honoured('replaybd.cacheDir', 'string', 'cache folder, or `none` for memory'),
  honoured('replaybd.quotaGB', 'positive', "the cache's quota in GiB; before the two above"),
  honoured('replaybd.traceDir', 'string', 'folder of the local trace store'),
  honoured(
    'replaybd.readDeadlineMs',
    'positive',
    'how long a demand read may take before it fails (30,000)',
  ),
  honoured(
    'replaybd.demandConcurrency',
    'natural',
    'requests at once to a registry that guests wait for, 1 to 32 (32)',
  ),
  honoured(
    'replaybd.prefetchConcurrency',
    'natural',
    'requests at once to a registry ahead of them, 1 to 48 (48)',
  ),
  honoured(
    'replaybd.mode',
    'word',
    'daemon: `off`, `record`, `replay` or `auto`, where a request does not say (`auto`)',
  ),
  honoured('replaybd.budgetMB', 'positive', 'daemon: most that one replay may fetch, in MiB'),
  honoured(
    'replaybd.packed',
    'word',
    'daemon: whether [hot blobs](trace-lab.md#pack) are read: `auto` (the default), `on`, `off`',
  ),
  honoured(
    'replaybd.traceFrom',
    'word',
    'where a trace is looked for that is not named: `store`, `registry` or `any` (`any`)',
  ),
  honoured('replaybd.renewTraces', 'boolean', 'mode `auto` records stale traces anew (true)'),
  honoured(
    'replaybd.coverageMin',
    'share',
    'a trace that plans a smaller share of a run is stale, 0 to 1 (0.8)',
  ),
  honoured(
    'replaybd.traceMaxAgeDays',
    'positive',
    'a trace recorded longer ago is stale (none is for its age)',
  ),
  honoured(
    'replaybd.logLevel',
    'word',
    'daemon: `debug`, `info`, `warn`, `error`, `fatal` or `silent`; before all above',
  ),
  honoured('replaybd.logPath', 'string', 'daemon: the log file; before all above'),
  honoured(
    'replaybd.exporterAddress',
    'string',
    'address the exporter listens on (`127.0.0.1`); metrics have no password',
  ),
  honoured('replaybd.otlpEndpoint', 'httpUrl', 'collector that spans are sent to; as `--otel`'),
];

function honoured(path: string, type: KeyType, note: string): ServiceKey {
  return { path, type, effect: 'honoured', note };
}

function ignored(path: string, type: KeyType, note: string): ServiceKey {
  return { path, type, effect: 'ignored', note };
}
