import { existsSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { attachWorkload, isDeviceId, type AttachParameters } from '../daemon/attach-parameters.ts';
import type { FrontendKind, FrontendParameters } from '../frontend/frontend.ts';
import { FRONTEND_KINDS, kindsTaking } from '../frontend/frontends.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { port, positiveNumber } from './arguments.ts';
import {
  addRuntimeOptions,
  addSpanOption,
  addTraceOptions,
  addTraceSettings,
  type RuntimeFlags,
  type TraceFlags,
} from './runtime-options.ts';
import { workloadOf } from './workload-options.ts';

export interface AttachFlags extends RuntimeFlags, TraceFlags {
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
  // Each with the modules that it needs, and no more.
  if (flags.daemon === true) {
    const { attachToDaemon } = await import('./attach-to-daemon.ts');
    return await attachToDaemon(parameters, flags);
  }
  const { attachHere } = await import('./attach-here.ts');
  await attachHere(parameters, flags);
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
