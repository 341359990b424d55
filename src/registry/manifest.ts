import { registryLimits } from '../base/limits.ts';
import { isObject, parseJsonObject } from './collect.ts';
import { isDigest } from './digest.ts';
import { RegistryError } from './errors.ts';

/** Media types of the OCI image specification and of Docker's schema 2. */
export const mediaTypes = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  ociLayer: 'application/vnd.oci.image.layer.v1.tar',
  ociEmpty: 'application/vnd.oci.empty.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
} as const;

export interface Platform {
  os: string;
  architecture: string;
  variant?: string;
}

/** A content descriptor (OCI image specification, descriptor.md). */
export interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  artifactType?: string;
  annotations?: Record<string, string>;
  platform?: Platform;
}

export interface ImageManifest {
  schemaVersion: 2;
  mediaType?: string;
  artifactType?: string;
  config: Descriptor;
  layers: Descriptor[];
  subject?: Descriptor;
  annotations?: Record<string, string>;
}

export interface ImageIndex {
  schemaVersion: 2;
  mediaType?: string;
  artifactType?: string;
  manifests: Descriptor[];
  subject?: Descriptor;
  annotations?: Record<string, string>;
}

/** The platform of this process, in the names of OCI images. */
export function hostPlatform(): Platform {
  const architectures: Record<string, string> = { x64: 'amd64', ia32: '386' };
  return { os: 'linux', architecture: architectures[process.arch] ?? process.arch };
}

/** Parses and checks a manifest or index found at `name`; ERR_MANIFEST when it is neither. */
export function parseManifest(name: string, bytes: Uint8Array): ImageManifest | ImageIndex {
  const json = parseJsonObject(bytes);
  if (json?.schemaVersion !== 2) throw badManifest(name, 'a JSON object of schemaVersion 2');
  const common = {
    schemaVersion: 2 as const,
    ...(typeof json.mediaType === 'string' ? { mediaType: json.mediaType } : {}),
    ...(typeof json.artifactType === 'string' ? { artifactType: json.artifactType } : {}),
    ...(json.subject === undefined ? {} : { subject: parseDescriptor(name, json.subject) }),
    ...annotationsOf(json.annotations),
  };
  if (Array.isArray(json.manifests)) {
    return { ...common, manifests: parseDescriptors(name, json.manifests) };
  }
  if (!Array.isArray(json.layers)) throw badManifest(name, 'layers or manifests');
  return {
    ...common,
    config: parseDescriptor(name, json.config),
    layers: parseDescriptors(name, json.layers),
  };
}

export function isIndex(manifest: ImageManifest | ImageIndex): manifest is ImageIndex {
  return 'manifests' in manifest;
}

/** The index entry for a platform; ERR_PLATFORM when there is none. Attestations are no images. */
export function selectPlatform(name: string, index: ImageIndex, wanted: Platform): Descriptor {
  const fits = index.manifests.filter(({ platform, annotations }) => {
    if (annotations?.['vnd.docker.reference.type'] === 'attestation-manifest') return false;
    if (platform?.os !== wanted.os || platform.architecture !== wanted.architecture) return false;
    return wanted.variant === undefined || platform.variant === wanted.variant;
  });
  const [first] = fits;
  if (first !== undefined) return first;
  const platforms = index.manifests.map(
    ({ platform }) => `${platform?.os}/${platform?.architecture}`,
  );
  throw new RegistryError(
    'ERR_PLATFORM',
    `${name}: expected an image for ${wanted.os}/${wanted.architecture}, ` +
      `found ${platforms.slice(0, 10).join(', ') || 'none'}.`,
    { errno: 'ENOENT' },
  );
}

function parseDescriptors(name: string, values: unknown[]): Descriptor[] {
  if (values.length > registryLimits.descriptorsMax) {
    throw badManifest(name, `at most ${registryLimits.descriptorsMax} descriptors`);
  }
  return values.map((value) => parseDescriptor(name, value));
}

function parseDescriptor(name: string, value: unknown): Descriptor {
  if (!isObject(value)) throw badManifest(name, 'descriptors that are objects');
  const { mediaType, digest, size, artifactType, platform } = value;
  if (typeof digest !== 'string' || !isDigest(digest)) throw badManifest(name, 'sha256 digests');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) {
    throw badManifest(name, 'sizes that are whole numbers');
  }
  return {
    mediaType: typeof mediaType === 'string' ? mediaType : '',
    digest,
    size,
    ...(typeof artifactType === 'string' ? { artifactType } : {}),
    ...annotationsOf(value.annotations),
    ...(isObject(platform) ? { platform: parsePlatform(platform) } : {}),
  };
}

function parsePlatform(value: Record<string, unknown>): Platform {
  return {
    os: String(value.os),
    architecture: String(value.architecture),
    ...(typeof value.variant === 'string' ? { variant: value.variant } : {}),
  };
}

function annotationsOf(value: unknown): { annotations?: Record<string, string> } {
  if (!isObject(value)) return {};
  const texts = Object.entries(value).filter((entry): entry is [string, string] => {
    return typeof entry[1] === 'string';
  });
  return { annotations: Object.fromEntries(texts) };
}

function badManifest(name: string, expected: string): RegistryError {
  return new RegistryError(
    'ERR_MANIFEST',
    `${name}: manifest: expected ${expected}, found another.`,
  );
}
