import { codeOf, messageOf } from '../../base/errors.ts';
import { doctorLimits } from '../../base/limits.ts';
import type { RegistryClient } from '../../registry/client.ts';
import type { ServiceConfig } from '../service-config.ts';
import { ok, problem, warning, type Finding } from './finding.ts';
import type { SystemView } from './system-view.ts';

const OTHERS_MAY_READ = 0o044;

/** Where credentials come from, as far as it can be said without asking for any. */
export function checkCredentials(system: SystemView, config: ServiceConfig | null): Finding {
  const name = 'credentials';
  if (config === null) return ok(name, "Docker's configuration, if there is one");
  const { mode, path } = config.credentialConfig;
  if (mode !== 'file') return ok(name, `asked of a server, mode ${mode}`);
  const state = system.access(path, 'read');
  if (state === 'denied') {
    const meaning = 'registries that want a password refuse access';
    return problem(name, `${path} may not be read`, meaning, 'run as its owner');
  }
  if (state === 'missing') {
    const meaning = "Docker's credentials are used, or none: private images cannot be read";
    const fix = `write ${path} (docs/configuration.md, "Credentials"), or docker login`;
    return warning(name, `${path} does not exist`, meaning, fix);
  }
  if (((system.mode(path) ?? 0) & OTHERS_MAY_READ) !== 0) {
    const meaning = 'every user of this host may read the passwords in it';
    return warning(name, `${path} is readable by others`, meaning, `chmod 600 ${path}`);
  }
  return ok(name, path);
}

/** The certificate that registries are shown, if one is configured. */
export function checkCertificate(system: SystemView, config: ServiceConfig | null): Finding[] {
  const { certFile = '', keyFile = '' } = config?.certConfig ?? {};
  return [certFile, keyFile]
    .filter((path) => path !== '')
    .map((path) => {
      const state = system.access(path, 'read');
      if (state === 'ok') return ok('certificate', path);
      const found = `${path} ${state === 'missing' ? 'does not exist' : 'may not be read'}`;
      return problem('certificate', found, 'no registry can be asked', 'check certConfig');
    });
}

/** Asks the registry of an image as an attach would: access, manifest, the first bytes of a layer. */
export async function checkRegistry(client: RegistryClient, reference: string): Promise<Finding[]> {
  const signal = AbortSignal.timeout(doctorLimits.registryMsMax);
  const findings: Finding[] = [];
  try {
    await client.ping(reference, signal);
    findings.push(ok('registry.access', 'answers, and lets us in'));
    const { manifest } = await client.getManifest(reference, { signal });
    const { layers } = manifest;
    findings.push(ok('registry.manifest', `an image of ${layers.length} layers`));
    const [first] = layers;
    if (first !== undefined)
      findings.push(await checkRange(client, reference, first.digest, signal));
  } catch (error) {
    const steps = ['registry.access', 'registry.manifest', 'registry.range'];
    findings.push(failure(steps[findings.length], error));
  }
  return findings;
}

async function checkRange(
  client: RegistryClient,
  reference: string,
  digest: string,
  signal: AbortSignal,
): Promise<Finding> {
  const source = client.blobSource(reference, digest, null);
  try {
    // Of a blob of unknown size the first byte is asked for: a range that must be answered as one.
    const bytes = await source.size(signal);
    return ok('registry.range', `ranges of blobs can be read; the first has ${bytes} bytes`);
  } finally {
    await source.close();
  }
}

const CREDENTIALS =
  'check the credentials of this repository: docs/configuration.md, "Credentials"';
const CERTIFICATE = 'trust the authority with --ca or NODE_EXTRA_CA_CERTS, or check the host name';

/** What to do about an error of the client, by its code; its messages hold no secrets. */
const ADVICE: Readonly<Record<string, string>> = {
  ERR_REFERENCE: 'write the image as host/repository:tag',
  ERR_REGISTRY_AUTH: CREDENTIALS,
  ERR_CREDENTIAL_FILE: CREDENTIALS,
  ERR_CREDENTIAL_SERVER: 'check credentialConfig, and that its server runs',
  ERR_REGISTRY_NOT_FOUND: 'check the name and the tag of the image',
  ERR_REGISTRY_TLS: 'a registry without TLS is reached with --plain-http HOST',
  ERR_REGISTRY_CERTIFICATE: CERTIFICATE,
  ERR_PLATFORM: 'use an image for this machine',
  ERR_THROTTLED: 'the registry limits requests: log in, or try again later',
};

function failure(name: string, error: unknown): Finding {
  const fix = ADVICE[codeOf(error)] ?? 'check name, DNS, firewall and proxy on the way to it';
  return problem(name, messageOf(error), 'the image cannot be read from its registry', fix);
}
