import { Option, type Command } from 'commander';
import { LOG_LEVELS } from '../base/log-levels.ts';
import type { Logger } from '../base/log.ts';
import { defaultCacheFolder } from '../daemon/cache-folder.ts';
import type { Runtime, RuntimeOptions } from '../daemon/runtime.ts';
import type { AttachMode } from '../daemon/attachment.ts';
import { TRACE_FROM, type TraceFrom } from '../daemon/trace-from.ts';
import { DEFAULT_RENEWAL } from '../trace/store-renewal.ts';
import { PACKED_MODES, type PackedMode } from '../prefetch/packed-rule.ts';
import { DEFAULT_SERVICE_CONFIG_PATH, type ServiceConfig } from '../daemon/service-config.ts';
import { httpUrl, positiveNumber, share } from './arguments.ts';
import { addWorkloadOptions, type WorkloadFlags } from './workload-options.ts';
import {
  addRegistryOptions,
  addTraceFolderOption,
  registryOptions,
  serviceConfigOf,
  type RegistryFlags,
} from './registry-options.ts';

/** The flags of every command that opens devices. */
export interface RuntimeFlags extends RegistryFlags {
  cache?: string;
  quota?: number;
  traceDir?: string;
  logLevel: string;
  traceFrom?: TraceFrom;
  coverageMin?: number;
  traceMaxAgeDays?: number;
  /** False with --no-renew. */
  renew?: boolean;
  /** Of commands that serve devices. */
  otel?: string;
}

export interface TraceFlags extends WorkloadFlags {
  mode: AttachMode;
  trace?: string;
  budget?: number;
  packed?: PackedMode;
}

const QUOTA_GIB_DEFAULT = 4;

export function logLevelOption(): Option {
  return new Option('--log-level <level>', 'log this and what is graver').choices(LOG_LEVELS);
}

export function addRuntimeOptions(
  command: Command,
  logLevel: Option = logLevelOption().default('warn'),
): Command {
  return addTraceFolderOption(addRegistryOptions(command))
    .option(
      '--cache <dir>',
      `cache folder, or "none" for memory (default: ${defaultCacheFolder()})`,
    )
    .option('--quota <GiB>', `room for the cache (default: ${QUOTA_GIB_DEFAULT})`, positiveNumber)
    .addOption(logLevel);
}

/** For commands that serve devices. */
export function addSpanOption(command: Command): Command {
  return command.option(
    '--otel <url>',
    'send spans of attaching to this collector (OTLP/HTTP, such as http://127.0.0.1:4318/v1/traces)',
    httpUrl,
  );
}

/** Of every process that attaches images: settings of the traces of all its devices. */
export function addTraceSettings(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--trace-from <where>',
        'where to look for a trace that is not named (default: any)',
      ).choices(TRACE_FROM),
    )
    .option(
      '--coverage-min <share>',
      `auto records anew a trace that plans less of a run (default: ${DEFAULT_RENEWAL.coverageMin})`,
      share,
    )
    .option('--trace-max-age-days <days>', 'auto records an older trace anew', positiveNumber)
    .option('--no-renew', 'auto keeps a trace however stale it is');
}

export function addTraceOptions(command: Command, mode: AttachMode): Command {
  return addWorkloadOptions(command)
    .addOption(
      new Option('--mode <mode>', 'record, replay, either as there is a trace (auto), or off')
        .choices(['off', 'record', 'replay', 'auto'])
        .default(mode),
    )
    .option('--trace <file>', 'record to, or replay from, this file instead of the trace store')
    .option('--budget <MiB>', 'most that a replay may fetch', positiveNumber)
    .addOption(
      new Option(
        '--packed <when>',
        'read the hot blob of a packed trace: always, never, or where it pays (auto, default)',
      ).choices(PACKED_MODES),
    );
}

/**
 * A runtime as the flags, and overlaybd's own configuration file, ask for it. `serviceLog` is that of a
 * service, which tells of the configuration itself.
 */
export async function openRuntime(flags: RuntimeFlags, serviceLog?: Logger): Promise<Runtime> {
  const service = await serviceConfigOf(flags);
  const log = serviceLog ?? (await createLog(flags));
  if (serviceLog === undefined && service !== null && service.ignored.length > 0) {
    const config = flags.config ?? DEFAULT_SERVICE_CONFIG_PATH;
    log.info({ config, keys: service.ignored }, 'keys without an effect here are ignored');
  }
  const { folder: cacheFolder, quotaBytes } = cacheOf(flags, service);
  const traceFolder = flags.traceDir ?? service?.replaybd.traceDir ?? null;
  const otlpEndpoint = flags.otel ?? service?.replaybd.otlpEndpoint ?? null;
  const { readDeadlineMs, demandConcurrency, prefetchConcurrency } = service?.replaybd ?? {};
  // Commands that can do without one shall not wait for its modules.
  const { Runtime } = await import('../daemon/runtime.ts');
  return await Runtime.open({
    cacheFolder,
    quotaBytes,
    ...(traceFolder === null ? {} : { traceFolder }),
    ...given({ readDeadlineMs, demandConcurrency, prefetchConcurrency }),
    ...traceSettings(flags, service),
    registry: registryOptions(flags, service),
    ...(otlpEndpoint === null ? {} : { otlpEndpoint }),
    log,
  });
}

/** The log that the flags ask for. */
export async function createLog({ logLevel: level }: { logLevel: string }): Promise<Logger> {
  const { createLogger } = await import('../base/log.ts');
  return createLogger({ level });
}

/** Where traces come from, and when they are recorded anew. */
function traceSettings(
  flags: Pick<RuntimeFlags, 'traceFrom' | 'coverageMin' | 'traceMaxAgeDays' | 'renew'>,
  service: ServiceConfig | null,
): Pick<RuntimeOptions, 'traceFrom' | 'renewal'> {
  const own = service?.replaybd;
  const maxAgeDays = flags.traceMaxAgeDays ?? own?.traceMaxAgeDays ?? null;
  return {
    traceFrom: flags.traceFrom ?? own?.traceFrom ?? 'any',
    renewal: {
      renews: flags.renew !== false && (own?.renewTraces ?? true),
      coverageMin: flags.coverageMin ?? own?.coverageMin ?? DEFAULT_RENEWAL.coverageMin,
      maxAgeMs: maxAgeDays === null ? null : maxAgeDays * 86_400_000,
    },
  };
}

/** Where blobs are kept (null: in memory), and how much room they may take. */
export function cacheOf(
  flags: Pick<RuntimeFlags, 'cache' | 'quota'>,
  service: ServiceConfig | null,
): { folder: string | null; quotaBytes: number } {
  const folder = flags.cache ?? service?.replaybd.cacheDir ?? defaultCacheFolder();
  const quotaGiB =
    flags.quota ?? service?.replaybd.quotaGB ?? service?.cacheSizeGB ?? QUOTA_GIB_DEFAULT;
  return {
    folder: folder === 'none' ? null : folder,
    quotaBytes: Math.floor(quotaGiB * 2 ** 30),
  };
}

/** The settings that have a value. */
function given<Key extends string>(
  settings: Record<Key, number | null | undefined>,
): Partial<Record<Key, number>> {
  const entries = Object.entries(settings).filter(([, value]) => typeof value === 'number');
  return Object.fromEntries(entries) as Partial<Record<Key, number>>;
}
