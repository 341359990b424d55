import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import {
  DEFAULT_SERVICE_CONFIG_PATH,
  loadServiceConfig,
  type ServiceConfig,
} from '../daemon/service-config.ts';
import type { RegistryClient, RegistryClientOptions } from '../registry/client.ts';
import { firstOf } from '../registry/credentials.ts';
import { dockerCredentials } from '../registry/docker-credentials.ts';
import { overlaybdCredentials } from '../registry/overlaybd-credentials.ts';
import { defaultTraceFolder } from '../trace/store.ts';

/** The flags of every command that talks to a registry. */
export interface RegistryFlags {
  config?: string;
  plainHttp?: string[];
  ca?: string[];
  clientCert?: string;
  clientKey?: string;
}

export function addRegistryOptions(command: Command): Command {
  return command
    .option(
      '--config <file>',
      `overlaybd.json (default: ${DEFAULT_SERVICE_CONFIG_PATH} if present)`,
    )
    .option('--plain-http <host...>', 'registries to be reached without TLS')
    .option('--ca <file...>', "PEM files of authorities trusted beside Node's own")
    .option('--client-cert <file>', 'PEM file of the certificate shown to registries')
    .option('--client-key <file>', 'PEM file of its key')
    .hook('preAction', (_command, action) => {
      const { clientCert, clientKey } = action.opts<RegistryFlags>();
      if ((clientCert === undefined) === (clientKey === undefined)) return;
      action.error('error: --client-cert and --client-key belong together');
    });
}

export function addTraceFolderOption(command: Command): Command {
  return command.option(
    '--trace-dir <dir>',
    `folder of the local trace store (default: ${defaultTraceFolder()})`,
  );
}

/** overlaybd's own configuration: the file that is named, or the system's; null without one. */
export async function serviceConfigOf(flags: RegistryFlags): Promise<ServiceConfig | null> {
  const path = flags.config ?? DEFAULT_SERVICE_CONFIG_PATH;
  if (flags.config === undefined && !existsSync(path)) return null;
  return await loadServiceConfig(path);
}

/** How registries are reached; a flag comes before the file. */
export function registryOptions(
  flags: RegistryFlags,
  service: ServiceConfig | null,
): RegistryClientOptions {
  const { clientCert: certFile, clientKey: keyFile } = flags;
  const docker = dockerCredentials();
  const options: RegistryClientOptions = {
    credentials: docker,
    plainHttpHosts: flags.plainHttp ?? [],
    caFiles: flags.ca ?? [],
  };
  if (service !== null) {
    const { certConfig, p2pConfig, userAgent } = service;
    options.credentials = firstOf([overlaybdCredentials(service.credentialConfig), docker]);
    if (certConfig.certFile !== '') options.clientCertificate = certConfig;
    if (p2pConfig.enable) options.peerAddress = p2pConfig.address;
    if (userAgent !== '') options.userAgent = userAgent;
  }
  if (certFile !== undefined && keyFile !== undefined) {
    options.clientCertificate = { certFile, keyFile };
  }
  return options;
}

/** A registry client for as long as `work` takes, or until the signal is aborted. */
export async function withRegistry<T>(
  flags: RegistryFlags,
  work: (client: RegistryClient) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const { createRegistryClient } = await import('../registry/client.ts');
  const client = createRegistryClient(registryOptions(flags, await serviceConfigOf(flags)));
  closeOnAbort(client, signal);
  try {
    return await work(client);
  } finally {
    await client.close();
  }
}

/** Whatever waits for a registry ends when the signal is aborted. */
export function closeOnAbort(client: RegistryClient, signal?: AbortSignal): void {
  const close = () => void client.close();
  signal?.addEventListener('abort', close, { once: true });
  if (signal?.aborted === true) close();
}
