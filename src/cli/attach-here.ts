import { messageOf } from '../base/errors.ts';
import { removeDeadSockets } from '../base/unix-socket.ts';
import type { AttachParameters } from '../daemon/attach-parameters.ts';
import type { AttachmentReport } from '../daemon/attachment.ts';
import { startControl } from '../daemon/control.ts';
import { makeRuntimeDirectory } from '../daemon/daemon.ts';
import { deviceHandlers } from '../daemon/device-handlers.ts';
import { Devices } from '../daemon/devices.ts';
import type { Runtime } from '../daemon/runtime.ts';
import { checkFrontend } from '../frontend/frontends.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { recoverStale } from '../frontend/fuse/stale.ts';
import { NBD_SOCKET_SUFFIX } from '../frontend/nbd/prepare.ts';
import { VHOST_USER_SOCKET_SUFFIX } from '../frontend/vhost-user/limits.ts';
import { formatQuality } from '../prefetch/quality.ts';
import { announce } from './attach-output.ts';
import type { AttachFlags } from './attach.ts';
import { formatTrace, formatUpper } from './control-format.ts';
import { deviceSocketPath, SOCKET_SUFFIX } from './control-socket.ts';
import { openRuntime } from './runtime-options.ts';
import { interruptible, untilAborted } from './terminal.ts';

/** Ends a recording while the device goes on; SIGUSR1 is Node's own. */
const RECORD_STOP_SIGNAL = 'SIGUSR2';

/** Serves a device from this process until it is detached or interrupted. */
export async function attachHere(parameters: AttachParameters, flags: AttachFlags): Promise<void> {
  await checkFrontend(parameters.frontend, parameters.frontendParameters);
  await makeRuntimeDirectory(defaultRuntimeDirectory());
  const runtime = await openRuntime(flags);
  try {
    await interruptible((signal) => serve(runtime, parameters, flags, signal));
  } finally {
    await runtime.close();
  }
}

async function serve(
  runtime: Runtime,
  parameters: AttachParameters,
  flags: AttachFlags,
  signal: AbortSignal,
): Promise<void> {
  const directory = defaultRuntimeDirectory();
  const devices = new Devices({ runtime, directory });
  await clearLeftovers(flags, directory);
  const control = await startControl({
    socketPath: flags.socket ?? deviceSocketPath(flags.id),
    handlers: deviceHandlers(devices, { servesOne: true }),
    log: runtime.log,
  });
  let stopRecording = (): void => undefined;
  try {
    const device = await devices.attach(parameters, { signal });
    stopRecording = (): void => {
      device.attachment.stopRecording('request').catch((error: unknown) => {
        runtime.log.error({ signal: RECORD_STOP_SIGNAL }, messageOf(error));
      });
    };
    process.on(RECORD_STOP_SIGNAL, stopRecording);
    announce(device.summary, control.socketPath, flags);
    await Promise.race([untilAborted(signal), device.ended]);
    const report = await device.close();
    if (report !== null) printReport(report, flags);
  } finally {
    process.off(RECORD_STOP_SIGNAL, stopRecording);
    await devices.close();
    await control.close();
  }
}

/** What killed runs left in the runtime directory. */
async function clearLeftovers(flags: AttachFlags, directory: string): Promise<void> {
  await removeDeadSockets(directory, [SOCKET_SUFFIX, NBD_SOCKET_SUFFIX, VHOST_USER_SOCKET_SUFFIX]);
  if (flags.frontend === 'fuse') await recoverStale(directory);
}

function printReport(report: AttachmentReport, flags: AttachFlags): void {
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(report)}\n`);
    return;
  }
  const { trace } = report;
  const traceLine = trace === null ? '' : `trace        ${formatTrace(trace)}\n`;
  process.stdout.write(formatQuality(report.quality) + traceLine + formatUpper(report));
}
