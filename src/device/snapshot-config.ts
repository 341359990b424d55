import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { writeFileAtomic } from '../base/atomic-file.ts';
import { readConfigFile } from '../base/config-file.ts';
import { ReplaybdError } from '../base/errors.ts';
import { configLimits } from '../base/limits.ts';
import { parseImageConfig } from '../image/config.ts';
import {
  createUpper,
  type CreateUpperOptions,
  type UpperPaths,
} from '../image/lsmt/create-upper.ts';

// A config.v1.json as a snapshot or a fork changes it: every key that is not about the stack stays.

interface StackConfig {
  lowers: object[];
  upper?: Record<string, unknown>;
  accelerationLayer?: boolean;
  repoBlobUrl?: string;
}

/**
 * Puts a layer file on top of the lowers and names another writable layer, in one atomic step. Does
 * nothing when that was done before.
 */
export async function advanceConfig(
  configPath: string,
  sealedPath: string,
  upper: UpperPaths,
): Promise<void> {
  const config = await readStackConfig(configPath);
  if (config.upper?.data === upper.data) return;
  const layers =
    config.accelerationLayer === true ? config.lowers.length - 1 : config.lowers.length;
  const lowers = config.lowers.toSpliced(layers, 0, { file: sealedPath });
  // Whoever could read it still can.
  const { mode } = await stat(configPath);
  await writeConfig(configPath, withUpper({ ...config, lowers }, upper), mode);
}

/**
 * Takes over what another configuration says of anything but the stack: those of its keys win. An empty
 * `repoBlobUrl` does not, as the lowers that are there may need the one there is.
 */
export async function mergeConfig(configPath: string, otherPath: string): Promise<void> {
  const config = await readStackConfig(configPath);
  const { lowers, upper, accelerationLayer, repoBlobUrl } = config;
  const other = await readCheckedConfig(otherPath);
  const merged = {
    ...{ ...config, ...other },
    ...(other.repoBlobUrl ? {} : { repoBlobUrl }),
    ...{ lowers, upper, accelerationLayer },
  };
  const { mode } = await stat(configPath);
  await writeConfig(configPath, merged, mode);
}

/** The data file of the writable layer that a configuration names; '' when it names none. */
export async function configuredUpper(configPath: string): Promise<string> {
  const text = await readConfigFile(configPath, configLimits.fileBytesMax);
  return parseImageConfig(text, configPath).upper.data;
}

/**
 * Makes another device of the same stack: a new, empty writable layer, and a configuration that
 * names it over the same lowers. What the first device has in its own writable layer is not part of
 * it; take a snapshot first. Errors: ERR_UPPER_EXISTS, ERR_CONFIG_*.
 */
export async function forkConfig(
  configPath: string,
  forkPath: string,
  upper: CreateUpperOptions,
): Promise<void> {
  const config = await readStackConfig(configPath);
  await createUpper(upper);
  const { data, index } = upper;
  const forked = withUpper(config, { data: resolve(data), index: resolve(index) });
  await writeConfig(forkPath, { ...forked, resultFile: '' });
}

async function readStackConfig(path: string): Promise<StackConfig> {
  const { lowers, ...config } = await readCheckedConfig(path);
  if (lowers !== undefined) return { lowers, ...config };
  throw new ReplaybdError('ERR_CONFIG_LOWERS', `${path}: $.lowers: expected a list, found none`);
}

async function readCheckedConfig(path: string): Promise<Partial<StackConfig>> {
  const text = await readConfigFile(path, configLimits.fileBytesMax);
  // Checked whole by the one parser there is; the keys that it does not know are kept.
  parseImageConfig(text, path);
  return JSON.parse(text) as Partial<StackConfig>;
}

function withUpper(config: StackConfig, { data, index }: UpperPaths): StackConfig {
  return { ...config, upper: { ...config.upper, index, data } };
}

async function writeConfig(path: string, config: object, mode?: number): Promise<void> {
  await writeFileAtomic(path, Buffer.from(`${JSON.stringify(config, null, 2)}\n`), mode);
}
