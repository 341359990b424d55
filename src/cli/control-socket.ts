import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import { SOCKETS_MAX } from '../base/limits.ts';
import type { BlobCacheStats } from '../blob/cache/blob-cache.ts';
import type { FetchStats } from '../blob/fetch/fetch-stats.ts';
import type { AttachmentReport } from '../daemon/attachment.ts';
import { controlRequest } from '../daemon/control-client.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';

/** Which attached device a command is about, and how it answers. */
export interface ControlFlags {
  socket?: string;
  id?: string;
  json?: boolean;
}

/** What the control API tells of a device. */
export interface DeviceStats extends AttachmentReport {
  fetcher: FetchStats;
  cache: BlobCacheStats;
}

/** The end of a control socket's name. */
export const SOCKET_SUFFIX = '.sock';

export function addSocketOptions(command: Command): Command {
  return command
    .addOption(new Option('--socket <path>', 'its control socket').conflicts('id'))
    .option('--id <name>', 'its name (default: the only device in the runtime directory)')
    .option('--json', 'print JSON');
}

/** The request path of what can be done with a device. */
export function devicePath(device: string, verb: string): string {
  return `/v1/devices/${encodeURIComponent(device)}/${verb}`;
}

/** A process serves one device. */
export async function onlyDevice(socketPath: string): Promise<DeviceStats> {
  const devices = await controlRequest(socketPath, 'GET', '/v1/devices');
  if (Array.isArray(devices) && devices.length === 1) return devices[0] as DeviceStats;
  throw new ReplaybdError(
    'ERR_CONTROL_REPLY',
    `${socketPath}: expected a daemon of one device, found something else.`,
  );
}

/** What a person calls a device: its socket, when there is a slash in it, or its name. */
export function namedDevice(name: string | undefined): ControlFlags {
  if (name === undefined) return {};
  return name.includes('/') ? { socket: name } : { id: name };
}

/** The socket that is named, that of the device that is named, or the only one that answers. */
export async function findSocket({ socket, id }: ControlFlags): Promise<string> {
  if (socket !== undefined) return socket;
  const folder = defaultRuntimeDirectory();
  if (id !== undefined) return join(folder, `${id}${SOCKET_SUFFIX}`);
  const alive: string[] = [];
  for (const name of socketsIn(folder)) {
    if (await isAlive(join(folder, name))) alive.push(name);
  }
  if (alive.length === 1) return join(folder, alive[0]);
  const ids = alive.map((name) => name.slice(0, -SOCKET_SUFFIX.length));
  throw new ReplaybdError(
    alive.length === 0 ? 'ERR_CONTROL_UNREACHABLE' : 'ERR_CONTROL_AMBIGUOUS',
    `${folder}: expected the control socket of one attached device, found ` +
      `${alive.length === 0 ? 'none' : `those of ${ids.join(', ')}`}. ` +
      'Name the device with --id, or its socket with --socket.',
  );
}

/** A process that was killed leaves its socket behind until the next attach. */
async function isAlive(socketPath: string): Promise<boolean> {
  try {
    await controlRequest(socketPath, 'GET', '/v1/health');
    return true;
  } catch (error) {
    if (codeOf(error) === 'ERR_CONTROL_UNREACHABLE') return false;
    throw error;
  }
}

function socketsIn(folder: string): string[] {
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
