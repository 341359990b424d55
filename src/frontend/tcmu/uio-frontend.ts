import { BlockingThread } from '../../../native/blocking-thread.ts';
import type { Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import type { Frontend } from '../frontend.ts';
import { Backstore } from './kernel/backstore.ts';
import type { UioDevice } from './kernel/uio.ts';
import { UioServer } from './serve-uio.ts';

export interface UioFrontendOptions {
  /** A former process may have served it. */
  isFound: boolean;
  log: Logger;
  /** The device can be served no more. */
  onFailed: (error: unknown) => void;
  /** The kernel has removed the device. */
  onGone: () => void;
}

/**
 * Serves a device that somebody else has made in configfs, and will remove: closing leaves it there
 * for the next who serves it. Errors: those of UioServer.start.
 */
export async function serveUioDevice(
  device: BlockDevice,
  uio: UioDevice,
  options: UioFrontendOptions,
): Promise<Frontend> {
  const { isFound, log, onFailed, onGone } = options;
  const server = await withBackstore(uio, (backstore) =>
    UioServer.start({
      backstore,
      minor: uio.minor,
      device,
      isAdopted: isFound,
      log,
      onEnded: (error) => (error === null ? onGone() : onFailed(error)),
    }),
  );
  return {
    kind: 'tcmu',
    path: `/dev/uio${uio.minor}`,
    close: () => server.close(),
    // Guests are told by the next command that they send; the disk is theirs to look at again.
    resize: async (grow) => {
      await grow();
      await withBackstore(uio, (backstore) => backstore.setSize(device.virtualSizeBytes));
    },
  };
}

/** Its thread is there only as long as it is needed: there may be many devices. */
async function withBackstore<T>(
  { name }: UioDevice,
  use: (backstore: Backstore) => Promise<T>,
): Promise<T> {
  const thread = new BlockingThread();
  try {
    return await use(new Backstore(name.hba, name.device, thread));
  } finally {
    thread.close();
  }
}
