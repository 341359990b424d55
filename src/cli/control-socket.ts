import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { SOCKETS_MAX } from '../base/limits.ts';
import type { BlobCacheStats } from '../blob/cache/blob-cache.ts';
import type { FetchStats } from '../blob/fetch/fetch-stats.ts';
import type { AttachmentReport } from '../daemon/attachment.ts';
import { controlRequest } from '../daemon/control-client.ts';
import { DAEMON_SOCKET } from '../daemon/daemon-socket.ts';
import type { DeviceSummary } from '../daemon/served-device.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';

/** Which attached device a command is about, and how it answers. */
export interface ControlFlags {
  socket?: string;
  id?: string;
  json?: boolean;
}

/** What the control API tells of a device. */
export interface DeviceStats extends AttachmentReport, Pick<DeviceSummary, 'state' | 'failure'> {
  fetcher: FetchStats;
  cache: BlobCacheStats;
}

/** The end of a control socket's name. */
export const SOCKET_SUFFIX = '.sock';

export function addSocketOptions(command: Command): Command {
  return command
    .argument('[device]', 'its name (default: the only device that is attached)')
    .addOption(socketOption().conflicts('id'))
    .addOption(new Option('--id <name>', 'its name').hideHelp())
    .option('--json', 'print JSON');
}

export function socketOption(): Option {
  return new Option('--socket <path>', 'control socket of the process that serves it');
}

/** The flags, with the device that the first argument names. */
export function deviceFlags(name: string | undefined, flags: ControlFlags): ControlFlags {
  return name === undefined ? flags : { ...flags, ...namedDevice(name) };
}

/** The request path of what can be done with a device. */
export function devicePath(device: string, verb: string): string {
  return `/v1/devices/${encodeURIComponent(device)}/${verb}`;
}

/** What a person calls a device: its socket, when there is a slash in it, or its name. */
export function namedDevice(name: string | undefined): ControlFlags {
  if (name === undefined) return {};
  return name.includes('/') ? { socket: name } : { id: name };
}

/** An attached device, and the socket of the process that serves it. */
export interface FoundDevice extends DeviceSummary {
  socketPath: string;
}

/** Where the only device of a process is reached unless it is told otherwise. */
export function deviceSocketPath(id: string): string {
  return join(defaultRuntimeDirectory(), `${id}${SOCKET_SUFFIX}`);
}

/** Where the daemon is reached unless it is told otherwise. */
export function daemonSocketPath(): string {
  return join(defaultRuntimeDirectory(), DAEMON_SOCKET);
}

/**
 * The device that is named, on the socket that is named, or the only one there is: of the daemon, or of
 * a process of `replaybd attach`. Throws ERR_CONTROL_UNREACHABLE, ERR_CONTROL_AMBIGUOUS or
 * ERR_DEVICE_UNKNOWN.
 */
export async function findDevice({ socket, id }: ControlFlags): Promise<FoundDevice> {
  const own = id === undefined ? '' : deviceSocketPath(id);
  const sockets = socket === undefined ? socketsOf(own) : [socket];
  const found: FoundDevice[] = [];
  for (const socketPath of sockets) {
    // Only what is named has to be there.
    const devices = await devicesOf(socketPath, socketPath === socket || socketPath === own);
    found.push(...devices.filter(({ device }) => id === undefined || device === id));
    if (id !== undefined && found.length > 0) break;
  }
  if (found.length === 1) return found[0];
  const folder = socket ?? defaultRuntimeDirectory();
  if (id !== undefined) {
    throw new ReplaybdError('ERR_DEVICE_UNKNOWN', `${folder}: no device ${id} is attached.`);
  }
  const names = found.map(({ device }) => device).join(', ');
  throw new ReplaybdError(
    found.length === 0 ? 'ERR_CONTROL_UNREACHABLE' : 'ERR_CONTROL_AMBIGUOUS',
    `${folder}: expected the control socket of one attached device, found ` +
      `${found.length === 0 ? 'none' : `those of ${names}`}. ` +
      'Name the device, or the control socket of its process with --socket.',
  );
}

/** Every device that is served from the runtime directory, or through the socket that is named. */
export async function findDevices(socket?: string): Promise<FoundDevice[]> {
  if (socket !== undefined) return await devicesOf(socket, true);
  const found: FoundDevice[] = [];
  for (const socketPath of socketsOf('')) found.push(...(await devicesOf(socketPath, false)));
  return found;
}

/** None, unless somebody has to be there, of a socket that a process which was killed has left. */
async function devicesOf(socketPath: string, isExpected: boolean): Promise<FoundDevice[]> {
  try {
    const devices = await controlRequest(socketPath, 'GET', '/v1/devices');
    if (Array.isArray(devices)) {
      return devices.map((device) => ({ ...(device as DeviceSummary), socketPath }));
    }
  } catch (error) {
    if (!isExpected && codeOf(error) === 'ERR_CONTROL_UNREACHABLE') return [];
    throw error;
  }
  throw new ReplaybdError(
    'ERR_CONTROL_REPLY',
    `${socketPath}: expected a list of devices, found something else. Is this a replaybd daemon?`,
  );
}

/** A named device's own socket, the daemon's when there is one, or all there are. */
function socketsOf(own: string): string[] {
  const daemon = daemonSocketPath();
  const hasDaemon = existsSync(daemon);
  if (own !== '') return existsSync(own) || !hasDaemon ? [own] : [daemon];
  const folder = defaultRuntimeDirectory();
  const others = socketNames(folder).map((name) => join(folder, name));
  return hasDaemon ? [daemon, ...others] : others;
}

function socketNames(folder: string): string[] {
  try {
    const names = readdirSync(folder).filter((name) => name.endsWith(SOCKET_SUFFIX));
    return names.sort().slice(0, SOCKETS_MAX);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return [];
    throw new ReplaybdError(
      'ERR_RUNTIME_DIRECTORY',
      `${folder}: cannot be read (${codeOf(error)}). Name the socket with --socket.`,
      { cause: error },
    );
  }
}

/** Prints what a command found, as JSON when asked for. */
export function print(flags: { json?: boolean }, facts: unknown, text: string): void {
  process.stdout.write(flags.json === true ? `${JSON.stringify(facts)}\n` : text);
}
