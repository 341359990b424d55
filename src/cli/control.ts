import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { Option, type Command } from 'commander';
import { codeOf, ReplaybdError } from '../base/errors.ts';
import type { BlobCacheStats } from '../blob/cache/blob-cache.ts';
import type { FetchStats } from '../blob/fetch/fetch-stats.ts';
import type { AttachmentReport } from '../daemon/attachment.ts';
import { controlRequest } from '../daemon/control-client.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { formatQuality } from '../prefetch/quality.ts';
import { formatBytes } from './terminal.ts';

interface ControlFlags {
  socket?: string;
  id?: string;
  json?: boolean;
}

/** What the control API tells of a device. */
interface DeviceStats extends AttachmentReport {
  fetcher: FetchStats;
  cache: BlobCacheStats;
}

const SOCKET_SUFFIX = '.sock';
/** Sockets of one runtime directory that are looked at. */
const SOCKETS_MAX = 1000;

/** `replaybd stats`, `detach` and `record-stop`: what an attached device's control socket can do. */
export function register(program: Command): void {
  addSocketOptions(program.command('stats'))
    .description('say how an attached device is doing')
    .action(stats);
  addSocketOptions(program.command('detach')).description('end an attached device').action(detach);
  addSocketOptions(program.command('record-stop'))
    .description("save a device's recording and leave it attached")
    .action(stopRecording);
}

function addSocketOptions(command: Command): Command {
  return command
    .addOption(new Option('--socket <path>', 'its control socket').conflicts('id'))
    .option('--id <name>', 'its name (default: the only device in the runtime directory)')
    .option('--json', 'print JSON');
}

async function stats(flags: ControlFlags): Promise<void> {
  const socketPath = await findSocket(flags);
  const health = (await controlRequest(socketPath, 'GET', '/v1/health')) as { pid: number };
  const facts = { pid: health.pid, ...(await onlyDevice(socketPath)) };
  print(flags, facts, formatStats(facts));
}

async function detach(flags: ControlFlags): Promise<void> {
  const socketPath = await findSocket(flags);
  const { device } = await onlyDevice(socketPath);
  const answer = await controlRequest(socketPath, 'POST', devicePath(device, 'detach'));
  print(flags, answer, `${device} is being detached\n`);
}

async function stopRecording(flags: ControlFlags): Promise<void> {
  const socketPath = await findSocket(flags);
  const { device } = await onlyDevice(socketPath);
  const path = devicePath(device, 'record/stop');
  const answer = (await controlRequest(socketPath, 'POST', path)) as RecordStopped;
  const seconds = (answer.durationUs / 1e6).toFixed(1);
  print(flags, answer, `${device}: ${answer.records} records in ${seconds} s\n`);
}

interface RecordStopped {
  records: number;
  durationUs: number;
}

function devicePath(device: string, verb: string): string {
  return `/v1/devices/${encodeURIComponent(device)}/${verb}`;
}

/** A process serves one device. */
async function onlyDevice(socketPath: string): Promise<DeviceStats> {
  const devices = await controlRequest(socketPath, 'GET', '/v1/devices');
  if (Array.isArray(devices) && devices.length === 1) return devices[0] as DeviceStats;
  throw new ReplaybdError(
    'ERR_CONTROL_REPLY',
    `${socketPath}: expected a daemon of one device, found something else.`,
  );
}

/** The socket that is named, that of the device that is named, or the only one that answers. */
async function findSocket({ socket, id }: ControlFlags): Promise<string> {
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

/** A process that was killed leaves its socket behind. */
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

function formatStats(facts: DeviceStats & { pid: number }): string {
  const { trace, replay, fetcher, cache } = facts;
  const row = (name: string, text: string): string => `${name.padEnd(13)}${text}\n`;
  const inFlight = formatBytes(fetcher.demand.activeBytes + fetcher.prefetch.activeBytes);
  return (
    row('device', `${facts.device} (process ${facts.pid}): ${facts.image}`) +
    row('mode', `${facts.mode}, ready in ${facts.readyMs.toFixed(0)} ms`) +
    row('disk', `${formatBytes(facts.virtualSizeBytes)} in ${facts.layers} layers`) +
    (trace === null ? '' : row('trace', `${trace.records} records, ${trace.path}`)) +
    (replay === null
      ? ''
      : row(
          'replay',
          `${replay.end ?? 'running'}, ${formatBytes(replay.requestedBytes)} asked for`,
        )) +
    formatQuality(facts.quality) +
    row('in flight', `${inFlight}, ${fetcher.retries} retries, ${fetcher.throttles} throttles`) +
    row('cache', `${formatBytes(cache.usedBytes)} of ${formatBytes(cache.quotaBytes)}`)
  );
}

function print(flags: ControlFlags, facts: unknown, text: string): void {
  process.stdout.write(flags.json === true ? `${JSON.stringify(facts)}\n` : text);
}
