import { isDigest } from '../../registry/digest.ts';
import { isObject, parseJsonObject } from '../../registry/collect.ts';
import type { Platform } from '../../registry/manifest.ts';
import { sourceError } from './source.ts';

/** An image's configuration (OCI image specification, config.md), as far as converting needs it. */
export interface SourceConfig {
  /** All of it, in its own order. */
  json: Record<string, unknown>;
  /** Of the layers' uncompressed tars, the bottom first. */
  diffIds: string[];
  platform: Platform;
}

/**
 * Parses the configuration of an image of `layerCount` layers. Throws ERR_CONVERT_CONFIG when it is
 * none, or does not have a sha256 diff id for each layer.
 */
export function parseSourceConfig(
  name: string,
  bytes: Uint8Array,
  layerCount: number,
): SourceConfig {
  const json = parseJsonObject(bytes);
  if (json === null) throw badConfig(name, 'a JSON object', 'something else');
  const { rootfs } = json;
  const diffIds: unknown = isObject(rootfs) ? rootfs.diff_ids : undefined;
  if (!Array.isArray(diffIds) || !diffIds.every(isDiffId)) {
    throw badConfig(name, 'rootfs.diff_ids with sha256 digests', 'none, or others');
  }
  if (diffIds.length !== layerCount) {
    throw badConfig(name, `${layerCount} diff ids, one a layer`, String(diffIds.length));
  }
  const { os, architecture, variant } = json;
  const platform = {
    os: typeof os === 'string' && os !== '' ? os : 'linux',
    architecture: typeof architecture === 'string' ? architecture : '',
    ...(typeof variant === 'string' && variant !== '' ? { variant } : {}),
  };
  return { json, diffIds, platform };
}

/** The configuration with other diff ids; all else, the history too, stays as it is. */
export function withDiffIds(config: SourceConfig, diffIds: readonly string[]): Buffer {
  const { rootfs } = config.json;
  const changed = { ...(isObject(rootfs) ? rootfs : {}), type: 'layers', diff_ids: diffIds };
  return Buffer.from(JSON.stringify({ ...config.json, rootfs: changed }));
}

function isDiffId(value: unknown): value is string {
  return typeof value === 'string' && isDigest(value);
}

function badConfig(name: string, expected: string, found: string) {
  return sourceError(
    'ERR_CONVERT_CONFIG',
    `${name}: image configuration: expected ${expected}, found ${found}.`,
  );
}
