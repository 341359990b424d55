import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import type { Clock } from '../base/clock.ts';
import { ReplaybdError } from '../base/errors.ts';
import { forkConfig } from '../device/snapshot-config.ts';
import type { UpperPaths } from '../image/lsmt/create-upper.ts';
import type { Stack } from '../image/stack.ts';
import type { ForkParameters } from './control-parameters.ts';
import type { ImageDescription } from './image-description.ts';
import type { LiveUpper, SnapshotFacts } from './live-upper.ts';
import { createDeviceUpper, topUuid } from './open-upper.ts';
import { folderConfigPath, upperPaths } from './upper-folder.ts';

/** A device that has been forked off another one, to be attached by its configuration. */
export interface ForkFacts {
  readonly device: string;
  readonly config: string;
  readonly upper: UpperPaths;
  readonly lowers: number;
  /** What the first device had written was sealed for it; null when there was nothing. */
  readonly snapshot: SnapshotFacts | null;
  readonly elapsedMs: number;
}

/** What is forked: an attached device. */
export interface ForkSource {
  readonly id: string;
  readonly image: ImageDescription;
  /** The lowers as they were opened. */
  readonly stack: Stack;
  readonly upper: LiveUpper | null;
  readonly clock: Clock;
}

/**
 * Makes another device of what an attached one holds now: the same lowers - what was written is sealed
 * and becomes one of them - and a writable layer of its own, in a folder. Errors: ERR_FORK_EXISTS,
 * those of a snapshot and of createUpper.
 */
export async function forkDevice(
  source: ForkSource,
  { folder, kind }: ForkParameters,
): Promise<ForkFacts> {
  const { id, image, upper, clock } = source;
  const startedMs = clock.nowMs();
  const configPath = folderConfigPath(folder);
  const paths = upperPaths(folder, 0);
  for (const path of [configPath, paths.data, paths.index]) {
    if (existsSync(path)) throw existsError(path);
  }
  await mkdir(folder, { recursive: true, mode: 0o700 });
  let snapshot: SnapshotFacts | null = null;
  let { stack } = source;
  if (upper === null || image.upper === null) {
    const location = { ...paths, configPath, isThere: false };
    await createDeviceUpper(location, { lowers: image.lowers, stack, kind });
  } else {
    if (!upper.isUntouched) snapshot = await upper.snapshot({});
    ({ stack } = upper);
    await forkConfig(image.upper.configPath, configPath, {
      ...paths,
      kind: kind ?? upper.report().kind,
      virtualSizeBytes: upper.device.virtualSizeBytes,
      parentUuid: topUuid(stack),
    });
  }
  const elapsedMs = clock.nowMs() - startedMs;
  return {
    device: id,
    config: configPath,
    upper: paths,
    lowers: stack.layers.length,
    snapshot,
    elapsedMs,
  };
}

function existsError(path: string): ReplaybdError {
  return new ReplaybdError(
    'ERR_FORK_EXISTS',
    `${path}: exists already. Give each fork a folder of its own.`,
    { errno: 'EINVAL' },
  );
}
