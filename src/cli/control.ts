import type { Command } from 'commander';
import { controlRequest } from '../daemon/control-client.ts';
import { formatStats } from './control-format.ts';
import {
  addSocketOptions,
  devicePath,
  findSocket,
  onlyDevice,
  print,
  type ControlFlags,
} from './control-socket.ts';

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
