import { mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { ReplaybdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { LowerLocation } from '../image/config.ts';
import { createUpper, upperFiles } from '../image/lsmt/create-upper.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { openWritableUpper, type WritableUpper } from '../image/lsmt/writable-upper.ts';
import type { Stack } from '../image/stack.ts';
import type { ImageDescription } from './image-description.ts';
import { writeDeviceConfig, type UpperLocation } from './upper-folder.ts';

/** Of a writable layer that is created where nobody says. */
const KIND_DEFAULT: UpperKind = 'append';

/** A device's writable layer, open, and where it is. */
export interface OpenedUpper {
  readonly layer: WritableUpper;
  readonly location: UpperLocation;
}

/**
 * Opens the writable layer of an image whose lowers are open, or creates it on top of them, with its
 * configuration; null when the image has none. Errors: ERR_UPPER_KIND, ERR_UPPER_PARENT when it was
 * written on other layers, and those of createUpper and openWritableUpper.
 */
export async function openImageUpper(
  image: ImageDescription,
  stack: Stack,
  kind: UpperKind | undefined,
  log: Logger,
): Promise<OpenedUpper | null> {
  const location = image.upper;
  if (location === null) return null;
  if (!location.isThere) await createDeviceUpper(location, { lowers: image.lowers, stack, kind });
  const { data, index } = location;
  const { virtualSizeBytes } = stack.map;
  const layer = await openWritableUpper({ data, index }, { log, virtualSizeBytes });
  try {
    if (kind !== undefined) checkKind(layer, kind);
    checkParent(layer, stack);
    return { layer, location };
  } catch (error) {
    await layer.close();
    throw error;
  }
}

export interface NewUpperOptions {
  /** Bottom first, and what came of opening them. */
  lowers: readonly LowerLocation[];
  stack: Stack;
  /** append when absent. */
  kind?: UpperKind | undefined;
}

/**
 * Creates an empty writable layer and the configuration that names it on top of some lowers: both
 * or neither. Errors: those of createUpper and of the file system.
 */
export async function createDeviceUpper(
  { data, index, configPath }: UpperLocation,
  { lowers, stack, kind = KIND_DEFAULT }: NewUpperOptions,
): Promise<void> {
  await mkdir(dirname(data), { recursive: true, mode: 0o700 });
  const { virtualSizeBytes } = stack.map;
  await createUpper({ data, index, kind, virtualSizeBytes, parentUuid: topUuid(stack) });
  try {
    await writeDeviceConfig(configPath, lowers, { data, index });
  } catch (error) {
    // Without a configuration the next attempt would find files of which it knows nothing.
    await Promise.all(upperFiles({ data, index }).map((path) => rm(path, { force: true })));
    throw error;
  }
}

function checkKind({ kind, paths }: WritableUpper, wanted: UpperKind): void {
  if (kind === wanted) return;
  throw new ReplaybdError(
    'ERR_UPPER_KIND',
    `${paths.data}: expected a writable layer of kind ${wanted}, found ${kind}. ` +
      'Leave --upper-kind out: the kind is chosen when the layer is created.',
    { errno: 'EINVAL' },
  );
}

/**
 * Refuses a writable layer that was written on top of other lowers. Layers without a uuid are written
 * by some tools, and fit any other. ERR_UPPER_PARENT.
 */
export function checkParent({ parentUuid, paths }: WritableUpper, stack: Stack): void {
  const uuid = topUuid(stack);
  if (parentUuid === null || uuid === null || parentUuid === uuid) return;
  throw new ReplaybdError(
    'ERR_UPPER_PARENT',
    `${paths.data}: was written on top of layer ${parentUuid}, and the topmost lower of this ` +
      `device is ${uuid}. Attach it with the lowers that it belongs to.`,
    { errno: 'EINVAL' },
  );
}

/** Of the topmost lower; null when it has none. */
export function topUuid(stack: Stack): string | null {
  return stack.layers.at(-1)?.lsmt.facts.uuid ?? null;
}
