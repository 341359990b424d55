import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { codeOf, messageOf } from '../base/errors.ts';
import { removeDeadSockets } from '../base/unix-socket.ts';
import {
  attachBody,
  attachWorkload,
  isDeviceId,
  type AttachParameters,
} from '../daemon/attach-parameters.ts';
import type { AttachmentReport } from '../daemon/attachment.ts';
import { startControl } from '../daemon/control.ts';
import { controlRequest } from '../daemon/control-client.ts';
import { makeRuntimeDirectory } from '../daemon/daemon.ts';
import { deviceHandlers } from '../daemon/device-handlers.ts';
import { Devices } from '../daemon/devices.ts';
import type { Runtime } from '../daemon/runtime.ts';
import type { DeviceSummary } from '../daemon/served-device.ts';
import type { FrontendKind, FrontendParameters } from '../frontend/frontend.ts';
import { checkFrontend, FRONTEND_KINDS, kindsTaking } from '../frontend/frontends.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { recoverStale } from '../frontend/fuse/stale.ts';
import { NBD_SOCKET_SUFFIX } from '../frontend/nbd/prepare.ts';
import { VHOST_USER_SOCKET_SUFFIX } from '../frontend/vhost-user/limits.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { formatQuality } from '../prefetch/quality.ts';
import { port, positiveNumber } from './arguments.ts';
import { formatTrace, formatUpper } from './control-format.ts';
import {
  daemonSocketPath,
  devicePath,
  deviceSocketPath,
  findDevices,
  SOCKET_SUFFIX,
} from './control-socket.ts';
import {
  addRuntimeOptions,
  addSpanOption,
  addTraceOptions,
  addTraceSettings,
  openRuntime,
  type RuntimeFlags,
  type TraceFlags,
} from './runtime-options.ts';
import { complain, interruptible, untilAborted } from './terminal.ts';
import { workloadOf } from './workload-options.ts';

interface AttachFlags extends RuntimeFlags, TraceFlags {
  frontend: FrontendKind;
  id: string;
  daemon?: boolean;
  mount?: string;
  loop: boolean;
  socket?: string;
  guestSocket?: string;
  nbdSocket?: string;
  nbdPort?: number;
  timeLimit?: number;
  untilIdle?: number;
  upper?: string;
  upperKind?: UpperKind;
  json?: boolean;
}

/** Ends a recording while the device goes on; SIGUSR1 is Node's own. */
const RECORD_STOP_SIGNAL = 'SIGUSR2';
/** Flags that are parameters of a front end. */
const FRONTEND_FLAGS: readonly [string, keyof AttachFlags, keyof FrontendParameters][] = [
  ['--mount', 'mount', 'mount'],
  ['--no-loop', 'loop', 'loop'],
  ['--guest-socket', 'guestSocket', 'socket'],
  ['--nbd-socket', 'nbdSocket', 'socket'],
  ['--nbd-port', 'nbdPort', 'port'],
];

/** `replaybd attach`: an image as a block device, until it is detached or interrupted. */
export function register(program: Command): void {
  const command = program
    .command('attach')
    .description(
      'serve an image as a block device until Ctrl-C, SIGTERM or a control call; ' +
        'SIGUSR2 ends the recording. With --daemon, the daemon serves it until it is detached',
    )
    .argument('<image>', 'config.v1.json or an image reference')
    .addOption(
      new Option('--frontend <kind>', 'how to reach it').choices(FRONTEND_KINDS).default('fuse'),
    )
    .option('--id <name>', 'name of the device', deviceId, `d${process.pid}`)
    .option('--mount <dir>', `mount its file system here (${kindsTaking('mount').join(', ')})`)
    .option('--no-loop', 'do not attach a loop device (fuse); erofs can be mounted without one')
    .addOption(
      new Option(
        '--guest-socket <path>',
        `listen on this unix socket (${kindsTaking('socket').join(', ')})`,
      ).conflicts(['nbdPort', 'nbdSocket']),
    )
    .addOption(
      new Option('--nbd-socket <path>', 'listen on this unix socket (nbd)').conflicts('nbdPort'),
    )
    .option('--nbd-port <port>', 'listen on this port of 127.0.0.1, 0: a free one (nbd)', port)
    .option('--upper <dir>', 'make it writable: changes are kept in this folder')
    .addOption(
      new Option(
        '--upper-kind <kind>',
        'of a new writable layer: append (default) or sparse',
      ).choices(['append', 'sparse']),
    )
    .option('--socket <path>', "control socket: the device's, or the daemon's with --daemon")
    .option('--time-limit <s>', 'end the recording after so long', positiveNumber)
    .option(
      '--until-idle <s>',
      'end the recording when nothing new was read for so long',
      positiveNumber,
    )
    .option('--json', 'print JSON: one line when the device is ready, one when it is detached');
  addTraceOptions(command, 'auto');
  const before = command.options.length;
  addTraceSettings(addSpanOption(addRuntimeOptions(command)));
  const ofProcess = command.options.slice(before);
  command
    .addOption(
      new Option('--daemon', 'have the daemon attach it').conflicts(
        ofProcess.map((option) => option.attributeName()).filter((name) => name !== 'logLevel'),
      ),
    )
    .action(attach);
}

function deviceId(text: string): string {
  if (isDeviceId(text)) return text;
  throw new InvalidArgumentError('Expected letters, digits, dots, dashes, underscores.');
}

async function attach(target: string, flags: AttachFlags, command: Command): Promise<void> {
  const parameters = parametersOf(target, flags, command);
  if (flags.daemon === true) return await attachToDaemon(parameters, flags);
  await checkFrontend(parameters.frontend, parameters.frontendParameters);
  await makeRuntimeDirectory(defaultRuntimeDirectory());
  const runtime = await openRuntime(flags);
  try {
    await interruptible((signal) => serve(runtime, parameters, flags, signal));
  } finally {
    await runtime.close();
  }
}

/** The same facts as those of a device of this process. */
async function attachToDaemon(parameters: AttachParameters, flags: AttachFlags): Promise<void> {
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

/** A flag that would go unheeded is wrong usage. */
function parametersOf(target: string, flags: AttachFlags, command: Command): AttachParameters {
  const { id, frontend, upper, upperKind, trace, timeLimit, untilIdle, budget, packed } = flags;
  if (upperKind !== undefined && upper === undefined) {
    command.error('error: --upper-kind is for --upper');
  }
  for (const [flag, name, parameter] of FRONTEND_FLAGS) {
    const kinds = name.startsWith('nbd') ? (['nbd'] as const) : kindsTaking(parameter);
    const isGiven = name === 'loop' ? !flags.loop : flags[name] !== undefined;
    if (!isGiven || kinds.some((kind) => kind === frontend)) continue;
    const advice = name === 'mount' && frontend === 'nbd' ? ': a client mounts it itself' : '';
    command.error(`error: ${flag} is for --frontend ${kinds.join(', ')}${advice}`);
  }
  return {
    ...{ id, image: absoluteTarget(target), mode: flags.mode },
    ...attachWorkload(workloadOf(flags)),
    ...(trace === undefined ? {} : { trace: resolve(trace) }),
    ...(budget === undefined ? {} : { budgetMiB: budget }),
    ...(packed === undefined ? {} : { packed }),
    ...(timeLimit === undefined ? {} : { timeLimit }),
    ...(untilIdle === undefined ? {} : { untilIdle }),
    ...(upper === undefined ? {} : { upper: resolve(upper) }),
    ...(upperKind === undefined ? {} : { upperKind }),
    ...{ frontend, frontendParameters: frontendParametersOf(flags) },
  };
}

function frontendParametersOf(flags: AttachFlags): FrontendParameters {
  const { mount, loop, guestSocket, nbdSocket = guestSocket, nbdPort } = flags;
  return {
    ...(mount === undefined ? {} : { mount: resolve(mount) }),
    ...(loop ? {} : { loop }),
    ...(nbdSocket === undefined ? {} : { socket: resolve(nbdSocket) }),
    ...(nbdPort === undefined ? {} : { port: nbdPort }),
  };
}

/** A file by its whole path: a daemon has another working directory. */
function absoluteTarget(target: string): string {
  const isFile = !isAbsolute(target) && (target.endsWith('.json') || existsSync(target));
  return isFile ? resolve(target) : target;
}

/** What killed runs left in the runtime directory. */
async function clearLeftovers(flags: AttachFlags, directory: string): Promise<void> {
  await removeDeadSockets(directory, [SOCKET_SUFFIX, NBD_SOCKET_SUFFIX, VHOST_USER_SOCKET_SUFFIX]);
  if (flags.frontend === 'fuse') await recoverStale(directory);
}

function announce(summary: DeviceSummary, control: string, flags: AttachFlags): void {
  const { device, mode, frontend, path, mount, virtualSizeBytes, readyMs } = summary;
  const facts = { device, mode, frontend, path, mount, control, virtualSizeBytes, readyMs };
  if (flags.json === true) {
    // `id` is what `device` was called before.
    process.stdout.write(`${JSON.stringify({ id: device, ...facts })}\n`);
    return;
  }
  const mounted = mount === null ? '' : ` mounted on ${mount}`;
  const how = flags.daemon === true ? `replaybd detach ${device} ends it.` : 'Ctrl-C detaches.';
  process.stdout.write(
    `${path === null || path === '' ? device : path}${mounted}: ${summary.image}, ` +
      `${mode} mode, ready in ${(readyMs ?? 0).toFixed(0)} ms. ${how}\n`,
  );
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
