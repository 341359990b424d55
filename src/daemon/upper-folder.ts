import { readdir } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { writeFileAtomic } from '../base/atomic-file.ts';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { recoverSnapshot } from '../device/snapshot.ts';
import { readImageConfig, resolveLower, type LowerLocation } from '../image/config.ts';
import type { UpperPaths } from '../image/lsmt/create-upper.ts';
import type { ImageDescription } from './image-description.ts';

/*
 * A folder that `attach --upper` and `fork` keep a device's writable layer in:
 *
 *   config.v1.json             the image's lowers, the sealed layers of snapshots, and the upper
 *   upper-N.data, upper-N.index   writable layers; all but the last are sealed, and lowers
 */
const CONFIG_NAME = 'config.v1.json';
const UPPER_NAME = /^upper-(\d{1,9})\.(?:data|index)$/;

/** Where a device's writable layer is. */
export interface UpperLocation extends UpperPaths {
  /** The configuration that names it; snapshots rewrite it. */
  readonly configPath: string;
  /** It was there before; otherwise it is to be created, and then the configuration written. */
  readonly isThere: boolean;
}

/** The configuration file of a folder. */
export function folderConfigPath(folder: string): string {
  return join(resolve(folder), CONFIG_NAME);
}

/** The names of a folder's N-th writable layer. */
export function upperPaths(folder: string, number: number): UpperPaths {
  const path = (suffix: string): string => join(resolve(folder), `upper-${number}.${suffix}`);
  return { data: path('data'), index: path('index') };
}

/** Names beside a writable layer that no other has, or has had. */
export async function nextUpperPaths({ data }: UpperPaths): Promise<UpperPaths> {
  const folder = dirname(resolve(data));
  const numbers = (await namesIn(folder)).map((name) => Number(UPPER_NAME.exec(name)?.[1] ?? -1));
  return upperPaths(folder, Math.max(-1, ...numbers) + 1);
}

/**
 * An image with the writable layer of a folder on top, and below that what snapshots have sealed.
 * Nothing is created yet. Errors: ERR_UPPER_CONFLICT when the image names an upper of its own,
 * ERR_UPPER_IMAGE when the folder's is another image's, and those of configurations.
 */
export async function withUpperFolder(
  image: ImageDescription,
  folder: string,
  log: Logger,
): Promise<ImageDescription> {
  if (image.upper !== null) {
    throw new ReplaybdError(
      'ERR_UPPER_CONFLICT',
      `${image.name}: names a writable layer of its own, ${image.upper.data}. Leave --upper out.`,
      { errno: 'EINVAL' },
    );
  }
  const configPath = folderConfigPath(folder);
  if (!(await namesIn(folder)).includes(CONFIG_NAME)) {
    // An attach that was killed may have left files that nothing names yet.
    const paths = await nextUpperPaths(upperPaths(folder, 0));
    return { ...image, upper: { ...paths, configPath, isThere: false } };
  }
  await recoverSnapshot(configPath, log);
  const config = await readImageConfig(configPath);
  const lowers = await Promise.all(config.lowers.map((lower) => resolveLower(config, lower)));
  checkSameImage(image, lowers, configPath);
  const { data, index } = config.upper;
  return { ...image, lowers, upper: { data, index, configPath, isThere: true } };
}

/** None of a folder that is not there. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    return await readdir(folder);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw error;
  }
}

/** What a writable layer holds makes sense on the layers only that it was written on. */
function checkSameImage(
  image: ImageDescription,
  lowers: readonly LowerLocation[],
  configPath: string,
): void {
  const differs = image.lowers.findIndex((lower, i) => !isSameLower(lower, lowers[i]));
  if (differs < 0) return;
  const found = lowers[differs];
  throw new ReplaybdError(
    'ERR_UPPER_IMAGE',
    `${configPath}: its writable layer belongs to another image: expected layer ${differs} to be ` +
      `${nameOf(image.lowers[differs])}, found ${found === undefined ? 'none' : nameOf(found)}. ` +
      'Give each image a folder of its own.',
    { errno: 'EINVAL' },
  );
}

function isSameLower(one: LowerLocation, other: LowerLocation | undefined): boolean {
  if (other === undefined || one.kind !== other.kind) return false;
  if (one.kind === 'remote') return other.kind === 'remote' && one.digest === other.digest;
  return other.kind === 'file' && resolve(one.path) === resolve(other.path);
}

function nameOf(lower: LowerLocation): string {
  return lower.kind === 'file' ? lower.path : lower.digest;
}

/** Writes the configuration of a device: its lowers, bottom first, and its upper. */
export async function writeDeviceConfig(
  configPath: string,
  lowers: readonly LowerLocation[],
  { data, index }: UpperPaths,
): Promise<void> {
  const remote = lowers.find((lower) => lower.kind === 'remote');
  const config = {
    repoBlobUrl: remote?.url.slice(0, remote.url.lastIndexOf('/')) ?? '',
    lowers: lowers.map((lower) =>
      lower.kind === 'file'
        ? { file: resolve(lower.path) }
        : { digest: lower.digest, size: lower.size ?? 0, dir: '' },
    ),
    upper: { data, index },
    resultFile: '',
  };
  await writeFileAtomic(configPath, Buffer.from(`${JSON.stringify(config, null, 2)}\n`));
}
