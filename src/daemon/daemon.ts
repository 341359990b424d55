import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { removeDeadSockets } from '../base/unix-socket.ts';
import { recoverStale } from '../frontend/fuse/stale.ts';
import { NBD_SOCKET_SUFFIX } from '../frontend/nbd/prepare.ts';
import { VHOST_USER_SOCKET_SUFFIX } from '../frontend/vhost-user/limits.ts';
import { attachDefaults } from './attach-parameters.ts';
import type { AuditSink } from './audit-log.ts';
import { startControl, type Control } from './control.ts';
import { DAEMON_SOCKET } from './daemon-socket.ts';
import { DAEMON_PARTS, type DaemonContext, type DaemonPart } from './daemon-parts.ts';
import { DeviceStore } from './device-store.ts';
import { deviceHandlers } from './device-handlers.ts';
import { Devices } from './devices.ts';
import { containFaults } from './faults.ts';
import type { Runtime } from './runtime.ts';
import type { ServiceConfig } from './service-config.ts';

/** The folder of the devices beside it: whoever has the socket has the devices. */
const STATE_SUFFIX = '.devices';

export interface DaemonOptions {
  /** Open; the daemon closes it. */
  readonly runtime: Runtime;
  /** The runtime directory. */
  readonly directory: string;
  readonly socketPath?: string;
  /** Where devices are described; beside the socket by default. */
  readonly stateFolder?: string;
  /** overlaybd's configuration; null without one. */
  readonly service: ServiceConfig | null;
  readonly log: Logger;
  /** Told what is done with devices. */
  readonly audit?: AuditSink;
  /** Told of an error that belongs to no device: the process should end, and be started again. */
  readonly onFatal: (error: unknown) => void;
}

/** A running daemon. */
export interface Daemon {
  readonly socketPath: string;
  readonly devices: Devices;
  /** Resolves when every device of the former daemon is attached again, or has failed. */
  readonly adopted: Promise<void>;
  /** Closes all devices, side by side. Their descriptions stay, for the next daemon. */
  close(): Promise<void>;
}

/**
 * Starts a daemon: takes the control socket, clears away what a killed one left, and attaches that
 * one's devices again, while it serves requests already. Errors: ERR_SOCKET_IN_USE when there is a
 * daemon, ERR_STATE_LOCKED when one on another socket has its devices, ERR_SOCKET_PATH, ERR_STATE_FOLDER,
 * ERR_RUNTIME_DIRECTORY, and those of its parts.
 */
export async function startDaemon(options: DaemonOptions): Promise<Daemon> {
  const { runtime, directory, service, log, audit, onFatal } = options;
  const undo: (() => unknown)[] = [() => runtime.close()];
  const close = async (): Promise<void> => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  };
  try {
    await makeRuntimeDirectory(directory);
    const { socketPath = join(directory, DAEMON_SOCKET) } = options;
    const { stateFolder = `${socketPath}${STATE_SUFFIX}` } = options;
    const store = await DeviceStore.open(stateFolder, log);
    undo.push(() => store.close());
    const devices = new Devices({
      runtime,
      directory,
      store,
      ...(audit === undefined ? {} : { audit }),
    });
    undo.push(containFaults(log, onFatal));
    // Before anything is touched: whoever has the socket has the devices.
    const control: Control = await startControl({
      socketPath,
      handlers: deviceHandlers(devices, { defaults: attachDefaults(service) }),
      log,
    });
    // What waits for a device that is being opened is answered by the device's end.
    undo.push(async () => {
      await devices.close();
      await control.close();
    });
    // Before a request is answered, as that may save a device.
    store.lock();
    await removeDeadSockets(directory, [NBD_SOCKET_SUFFIX, VHOST_USER_SOCKET_SUFFIX]);
    for (const file of await recoverStale(directory, { clock: runtime.clock, log })) {
      log.warn({ file }, `${file}: was left by a process that was killed, and is removed`);
    }
    const adopted = adoptAll(devices, store);
    const context = { devices, runtime, directory, service, log };
    for (const load of DAEMON_PARTS) {
      const part = await startPart(load, context);
      if (part !== null) undo.push(() => part.close());
    }
    let closing: Promise<void> | null = null;
    return {
      socketPath: control.socketPath,
      devices,
      adopted,
      close: async () => await (closing ??= close()),
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Begins with every device before it returns; they are all `opening` then. */
async function adoptAll(devices: Devices, store: DeviceStore): Promise<void> {
  const described = await store.load();
  await Promise.all(described.map(async (parameters) => void (await devices.adopt(parameters))));
}

async function startPart(
  load: (typeof DAEMON_PARTS)[number],
  context: DaemonContext,
): Promise<DaemonPart | null> {
  const { start } = await load();
  return await start(context);
}

/** Makes the folder of sockets and mount points; only its owner may enter. ERR_RUNTIME_DIRECTORY. */
export async function makeRuntimeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new ReplaybdError(
      'ERR_RUNTIME_DIRECTORY',
      `${directory}: cannot be made: ${messageOf(error)}. ` +
        'Set XDG_RUNTIME_DIR to a folder of yours.',
      { cause: error },
    );
  }
}
