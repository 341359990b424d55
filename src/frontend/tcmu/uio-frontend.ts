import { BlockingThread } from '../../../native/blocking-thread.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import type { BlockDevice } from '../../device/block-device.ts';
import type { Frontend } from '../frontend.ts';
import { Backstore } from './kernel/backstore.ts';
import { hasFolder } from './kernel/configfs.ts';
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
  const thread = new BlockingThread();
  const backstore = backstoreOf(uio, thread);
  const start = async (): Promise<UioServer> => {
    await backstore.notifyOfAborts().catch((error: unknown) => log.warn(messageOf(error)));
    return await UioServer.start({
      backstore,
      minor: uio.minor,
      device,
      isAdopted: isFound,
      log,
      onEnded: (error) => (error === null ? onGone() : onFailed(error)),
    });
  };
  // There is a thread only as long as it is needed, which may be again: there may be many devices.
  const server = await start().finally(() => thread.close());
  return {
    kind: 'tcmu',
    path: `/dev/uio${uio.minor}`,
    close: async () => await server.close().finally(() => thread.close()),
    // Guests are told by the next command that they send; the disk is theirs to look at again.
    resize: async (grow) => {
      await grow();
      await withBackstore(uio, (grown) => grown.setSize(device.virtualSizeBytes));
    },
  };
}

/**
 * Fails the commands that wait in a device's ring, of which nobody knows when it is served again.
 * Those that come later wait. Nothing happens when the device is gone.
 */
export async function failWaiting(uio: UioDevice): Promise<void> {
  await withBackstore(uio, async (backstore) => {
    if (!hasFolder(backstore.folder)) return;
    await backstore.block(true);
    await backstore.resetRing('fail');
    await backstore.block(false);
  });
}

async function withBackstore<T>(
  uio: UioDevice,
  use: (backstore: Backstore) => Promise<T>,
): Promise<T> {
  const thread = new BlockingThread();
  try {
    return await use(backstoreOf(uio, thread));
  } finally {
    thread.close();
  }
}

function backstoreOf({ name }: UioDevice, thread: BlockingThread): Backstore {
  return new Backstore(name.hba, name.device, thread);
}
