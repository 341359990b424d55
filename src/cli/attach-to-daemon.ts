import { codeOf, messageOf } from '../base/errors.ts';
import { attachBody, type AttachParameters } from '../daemon/attach-parameters.ts';
import { controlRequest } from '../daemon/control-client.ts';
import type { DeviceSummary } from '../daemon/served-device.ts';
import { announce } from './attach-output.ts';
import type { AttachFlags } from './attach.ts';
import { daemonSocketPath, devicePath, findDevices } from './control-socket.ts';
import { complain, interruptible } from './terminal.ts';

/** The same facts as those of a device of this process. */
export async function attachToDaemon(
  parameters: AttachParameters,
  flags: AttachFlags,
): Promise<void> {
  const socketPath = flags.socket ?? daemonSocketPath();
  const summary = await interruptible((signal) => requestAttach(parameters, socketPath, signal));
  announce(summary, socketPath, flags);
}

/** A device that is not wanted any more before it is ready does not stay with the daemon. */
async function requestAttach(
  parameters: AttachParameters,
  socketPath: string,
  signal: AbortSignal,
): Promise<DeviceSummary> {
  const { id } = parameters;
  const present = await findDevices(socketPath);
  const isOurs = present.every(({ device }) => device !== id);
  const body = attachBody(parameters);
  try {
    const summary = await controlRequest(socketPath, 'POST', '/v1/devices', body, signal);
    return summary as DeviceSummary;
  } catch (error) {
    if (signal.aborted && isOurs) await withdraw(id, socketPath);
    throw error;
  }
}

async function withdraw(id: string, socketPath: string): Promise<void> {
  try {
    await controlRequest(socketPath, 'POST', devicePath(id, 'detach'));
  } catch (error) {
    if (codeOf(error) === 'ERR_DEVICE_UNKNOWN') return;
    complain(`replaybd: device ${id} stays with the daemon: ${messageOf(error)}`);
  }
}
