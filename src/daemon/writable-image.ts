import { systemClock } from '../base/clock.ts';
import { ReplaybdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Blob } from '../blob/blob.ts';
import { openLocalBlob } from '../blob/local-blob.ts';
import { createTapMap } from '../device/tap.ts';
import { WritableDevice } from '../device/writable-device.ts';
import { readImageConfig, resolveLower, type ImageConfig } from '../image/config.ts';
import type { RemoteOpener } from '../image/input.ts';
import type { UpperPaths } from '../image/lsmt/create-upper.ts';
import { openWritableUpper, type WritableUpper } from '../image/lsmt/writable-upper.ts';
import { emptyStack, openStack, type Stack } from '../image/stack.ts';
import { checkParent } from './open-upper.ts';
import { closeAll } from './open-image.ts';

/** An image that a tool writes to: nobody else has its writable layer meanwhile. */
export interface WritableImage {
  readonly device: WritableDevice;
  /** Flushes the writable layer, and closes all. */
  close(): Promise<void>;
}

export interface OpenWritableImageOptions {
  /** Opens lowers that are not local. */
  openRemote: RemoteOpener;
  log: Logger;
}

/**
 * Opens what a config.v1.json names as one disk to write to. There need be no lowers. Errors:
 * ERR_APPLY_UPPER without a writable layer, ERR_UPPER_PARENT, and those of the configuration, the
 * formats and openWritableUpper.
 */
export async function openWritableImage(
  configPath: string,
  options: OpenWritableImageOptions,
): Promise<WritableImage> {
  const { log, openRemote } = options;
  const config = await readImageConfig(configPath);
  const { data, index } = config.upper;
  if (data === '' || index === '') {
    throw new ReplaybdError(
      'ERR_APPLY_UPPER',
      `${configPath}: expected a writable layer ($.upper.data and $.upper.index), found none. ` +
        'Make one with "replaybd create", and name it there.',
    );
  }
  const blobs: Blob[] = [];
  try {
    await openLowers(config, openRemote, blobs);
    const lowers = blobs.length === 0 ? null : await openStack(blobs);
    const upper = await openUpperOn(lowers, { data, index }, log);
    const device = new WritableDevice({
      id: configPath,
      stack: lowers ?? emptyStack(upper.virtualSizeBytes),
      tap: createTapMap(1),
      upper,
      clock: systemClock,
      log,
      observer: { onMiss: () => 'demand', onMissDone: () => undefined },
    });
    const close = async () => {
      try {
        await device.close();
      } finally {
        await closeAll(blobs);
      }
    };
    return { device, close };
  } catch (error) {
    await closeAll(blobs);
    throw error;
  }
}

async function openLowers(
  config: ImageConfig,
  openRemote: RemoteOpener,
  blobs: Blob[],
): Promise<void> {
  // The topmost one is a trace then.
  const lowers = config.accelerationLayer ? config.lowers.slice(0, -1) : config.lowers;
  for (const lower of lowers) {
    const location = await resolveLower(config, lower);
    const isLocal = location.kind === 'file';
    blobs.push(isLocal ? await openLocalBlob(location.path) : await openRemote(location));
  }
}

async function openUpperOn(
  lowers: Stack | null,
  paths: UpperPaths,
  log: Logger,
): Promise<WritableUpper> {
  const size = lowers === null ? {} : { virtualSizeBytes: lowers.map.virtualSizeBytes };
  const upper = await openWritableUpper(paths, { log, ...size });
  try {
    if (lowers !== null) checkParent(upper, lowers);
    return upper;
  } catch (error) {
    await upper.close();
    throw error;
  }
}
