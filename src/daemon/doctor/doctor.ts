import { messageOf } from '../../base/errors.ts';
import type { RegistryClient } from '../../registry/client.ts';
import type { ServiceConfig } from '../service-config.ts';
import { checkCache } from './check-cache.ts';
import { checkFrontEnds, type FrontEndName } from './check-front-ends.ts';
import { checkHost, checkLibraries, checkPrograms } from './check-host.ts';
import { checkCertificate, checkCredentials, checkRegistry } from './check-registry.ts';
import { ok, problem, warning, type Finding } from './finding.ts';
import { systemView, type SystemView } from './system-view.ts';

export interface DoctorOptions {
  /** overlaybd.json, and its path; `load` rejects when it cannot be used. */
  config: { path: string; load: () => Promise<ServiceConfig | null> };
  /** Front ends that must work; none: FUSE or TCMU. */
  frontEnds: readonly FrontEndName[];
  /** Given what the configuration says: where blobs are kept; null in memory. */
  cache: (config: ServiceConfig | null) => { folder: string | null; quotaBytes: number };
  /** An image to be asked of its registry, by a client that is closed afterwards. */
  registry?: { reference: string; client: (config: ServiceConfig | null) => RegistryClient };
  system?: SystemView;
}

export interface Diagnosis {
  /** Nothing that is needed is missing. */
  healthy: boolean;
  findings: Finding[];
}

/** Looks at everything that a device needs, changes nothing, and says what to do. */
export async function examine(options: DoctorOptions): Promise<Diagnosis> {
  const { system = systemView, registry } = options;
  const findings = [
    ...checkHost(system),
    ...checkFrontEnds(system, options.frontEnds),
    ...checkLibraries(system),
    ...checkPrograms(system),
  ];
  const { config, about } = await readConfig(options.config);
  findings.push(...about, checkCredentials(system, config), ...checkCertificate(system, config));
  const { folder, quotaBytes } = options.cache(config);
  findings.push(
    ...(folder === null
      ? [ok('cache.folder', 'none: blobs are kept in memory')]
      : checkCache(system, folder, quotaBytes)),
  );
  if (registry !== undefined) findings.push(...(await askRegistry(registry, config)));
  return { healthy: findings.every(({ level }) => level !== 'problem'), findings };
}

async function readConfig({
  path,
  load,
}: DoctorOptions['config']): Promise<{ config: ServiceConfig | null; about: Finding[] }> {
  const name = 'config';
  try {
    const config = await load();
    if (config === null) return { config, about: [ok(name, `no ${path}: defaults`)] };
    const ignored = config.ignored.map(({ key, reason }) =>
      ok(`${name}.${key}`, `has no effect: ${reason}`),
    );
    const unknown = config.ignored.filter(({ reason }) => reason.startsWith('no key'));
    if (unknown.length === 0) return { config, about: [ok(name, path), ...ignored] };
    const keys = unknown.map(({ key }) => key).join(', ');
    const meaning = 'they have no effect, here or in overlaybd';
    const fix = `correct or remove them in ${path}`;
    return { config, about: [warning(name, `unknown keys: ${keys}`, meaning, fix), ...ignored] };
  } catch (error) {
    const fix = `correct ${path}; docs/configuration.md has every key`;
    return { config: null, about: [problem(name, messageOf(error), 'no command starts', fix)] };
  }
}

async function askRegistry(
  { reference, client }: NonNullable<DoctorOptions['registry']>,
  config: ServiceConfig | null,
): Promise<Finding[]> {
  let opened: RegistryClient;
  try {
    opened = client(config);
  } catch (error) {
    const fix = 'check certConfig and p2pConfig, --ca, --client-cert and --client-key';
    return [problem('registry.access', messageOf(error), 'no registry can be asked', fix)];
  }
  try {
    return await checkRegistry(opened, reference);
  } finally {
    await opened.close();
  }
}
