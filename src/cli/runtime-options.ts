import { existsSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { ReplaybdError } from '../base/errors.ts';
import { createLogger } from '../base/log.ts';
import { defaultCacheFolder, Runtime } from '../daemon/runtime.ts';
import type { AttachMode } from '../daemon/attachment.ts';
import {
  DEFAULT_SERVICE_CONFIG_PATH,
  loadServiceConfig,
  type ServiceConfig,
} from '../daemon/service-config.ts';
import { firstOf } from '../registry/credentials.ts';
import { dockerCredentials } from '../registry/docker-credentials.ts';
import {
  overlaybdCredentials,
  type OverlaybdCredentialConfig,
} from '../registry/overlaybd-credentials.ts';
import type { RegistryClientOptions } from '../registry/client.ts';
import { describeWorkload, type TraceWorkload } from '../trace/trace.ts';

/** The flags of every command that opens devices. */
export interface RuntimeFlags {
  config?: string;
  cache?: string;
  quota?: number;
  traceDir?: string;
  plainHttp?: string[];
  logLevel: string;
}

export interface TraceFlags {
  mode: AttachMode;
  trace?: string;
  workload?: string[];
  budget?: number;
}

const QUOTA_GIB_DEFAULT = 4;

export function addRuntimeOptions(command: Command): Command {
  return command
    .option(
      '--config <file>',
      `overlaybd.json (default: ${DEFAULT_SERVICE_CONFIG_PATH} if present)`,
    )
    .option(
      '--cache <dir>',
      `cache folder, or "none" for memory (default: ${defaultCacheFolder()})`,
    )
    .option('--quota <GiB>', `room for the cache (default: ${QUOTA_GIB_DEFAULT})`, positiveNumber)
    .option('--trace-dir <dir>', 'folder of the local trace store')
    .option('--plain-http <host...>', 'registries to be reached without TLS')
    .option('--log-level <level>', 'debug, info, warn, error or silent', 'warn');
}

export function addTraceOptions(command: Command, mode: AttachMode): Command {
  return command
    .addOption(
      new Option('--mode <mode>', 'record, replay, either as there is a trace (auto), or off')
        .choices(['off', 'record', 'replay', 'auto'])
        .default(mode),
    )
    .option('--trace <file>', 'record to, or replay from, this file instead of the trace store')
    .option('--workload <word...>', 'names the workload: traces are kept by image and workload')
    .option('--budget <MiB>', 'most that a replay may fetch', positiveNumber);
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError('Expected a positive number.');
}

export function workloadOf(flags: TraceFlags): TraceWorkload {
  return describeWorkload(flags.workload ?? [], []);
}

/** A runtime as the flags, and overlaybd's own configuration file, ask for it. */
export async function openRuntime(flags: RuntimeFlags): Promise<Runtime> {
  const path = flags.config ?? DEFAULT_SERVICE_CONFIG_PATH;
  const isGiven = flags.config !== undefined || existsSync(path);
  const service = isGiven ? await loadServiceConfig(path) : null;
  const log = createLogger({ level: flags.logLevel });
  if (service !== null && service.ignored.length > 0) {
    log.info({ config: path, keys: service.ignored }, 'keys without an effect here are ignored');
  }
  const cache = flags.cache ?? service?.replaybd.cacheDir ?? defaultCacheFolder();
  const quotaGiB =
    flags.quota ?? service?.replaybd.quotaGB ?? service?.cacheSizeGB ?? QUOTA_GIB_DEFAULT;
  const traceFolder = flags.traceDir ?? service?.replaybd.traceDir ?? null;
  const readDeadlineMs = service?.replaybd.readDeadlineMs ?? null;
  return await Runtime.open({
    cacheFolder: cache === 'none' ? null : cache,
    quotaBytes: Math.floor(quotaGiB * 2 ** 30),
    ...(traceFolder === null ? {} : { traceFolder }),
    ...(readDeadlineMs === null ? {} : { readDeadlineMs }),
    registry: registryOptions(flags, service),
    log,
  });
}

function registryOptions(
  flags: RuntimeFlags,
  service: ServiceConfig | null,
): RegistryClientOptions {
  const docker = dockerCredentials();
  const plainHttpHosts = flags.plainHttp ?? [];
  if (service === null) return { credentials: docker, plainHttpHosts };
  const { certConfig, p2pConfig, userAgent } = service;
  return {
    credentials: firstOf([overlaybdCredentials(credentialConfig(service)), docker]),
    plainHttpHosts,
    ...(certConfig.certFile === '' ? {} : { clientCertificate: certConfig }),
    ...(p2pConfig.enable ? { peerAddress: p2pConfig.address } : {}),
    ...(userAgent === '' ? {} : { userAgent }),
  };
}

function credentialConfig({ credentialConfig: config }: ServiceConfig): OverlaybdCredentialConfig {
  const { mode } = config;
  if (mode === 'file' || mode === 'http' || mode === 'https' || mode === 'uds') {
    return { ...config, mode };
  }
  throw new ReplaybdError(
    'ERR_CONFIG',
    `credentialConfig.mode: expected file, http, https or uds, found "${mode}".`,
  );
}
