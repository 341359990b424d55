import { resolve } from 'node:path';
import type { Command } from 'commander';
import { controlRequest } from '../daemon/control-client.ts';
import { positiveNumber } from './arguments.ts';
import { formatStats } from './control-format.ts';
import { addWorkloadOptions, workloadWords, type WorkloadFlags } from './workload-options.ts';
import {
  addSocketOptions,
  devicePath,
  deviceFlags,
  findDevice,
  print,
  type ControlFlags,
  type DeviceStats,
} from './control-socket.ts';

/** `replaybd stats`, `detach` and `record`: what the socket of the process that serves it can do. */
export function register(program: Command): void {
  addSocketOptions(program.command('stats'))
    .description('say how an attached device is doing')
    .action(stats);
  addSocketOptions(program.command('detach')).description('end an attached device').action(detach);
  const record = program.command('record').description('record what an attached device reads');
  addWorkloadOptions(addSocketOptions(record.command('start')))
    .description('record what is read for the first time from now on')
    .option('--trace <file>', 'record to this file instead of the trace store')
    .option('--time-limit <s>', 'end the recording after so long', positiveNumber)
    .option('--until-idle <s>', 'end it when nothing new was read for so long', positiveNumber)
    .action(startRecording);
  for (const command of [record.command('stop'), program.command('record-stop')]) {
    addSocketOptions(command)
      .description("save a device's recording and leave it attached")
      .action(stopRecording);
  }
}

async function stats(name: string | undefined, flags: ControlFlags): Promise<void> {
  const { socketPath, device } = await findDevice(deviceFlags(name, flags));
  const health = (await controlRequest(socketPath, 'GET', '/v1/health')) as { pid: number };
  const stats = await controlRequest(socketPath, 'GET', devicePath(device, 'stats'));
  const facts = { pid: health.pid, control: socketPath, ...(stats as DeviceStats) };
  print(flags, facts, formatStats(facts));
}

async function detach(name: string | undefined, flags: ControlFlags): Promise<void> {
  const { socketPath, device } = await findDevice(deviceFlags(name, flags));
  const answer = await controlRequest(socketPath, 'POST', devicePath(device, 'detach'));
  print(flags, answer, `${device} is detached\n`);
}

async function stopRecording(name: string | undefined, flags: ControlFlags): Promise<void> {
  const { socketPath, device } = await findDevice(deviceFlags(name, flags));
  const path = devicePath(device, 'record/stop');
  const answer = (await controlRequest(socketPath, 'POST', path)) as RecordStopped;
  const seconds = (answer.durationUs / 1e6).toFixed(1);
  print(flags, answer, `${device}: ${answer.records} records in ${seconds} s\n`);
}

interface RecordFlags extends ControlFlags, WorkloadFlags {
  trace?: string;
  timeLimit?: number;
  untilIdle?: number;
}

async function startRecording(name: string | undefined, flags: RecordFlags): Promise<void> {
  const { trace, timeLimit, untilIdle } = flags;
  const { socketPath, device } = await findDevice(deviceFlags(name, flags));
  const path = devicePath(device, 'record/start');
  const parameters = {
    ...{ ...workloadWords(flags), timeLimit, untilIdle },
    ...(trace === undefined ? {} : { trace: resolve(trace) }),
  };
  const answer = (await controlRequest(socketPath, 'POST', path, parameters)) as RecordStarted;
  print(flags, answer, `${device} is being recorded to ${answer.trace}\n`);
}

interface RecordStarted {
  trace: string;
}

interface RecordStopped {
  records: number;
  durationUs: number;
}
