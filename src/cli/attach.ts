import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { codeOf, messageOf, ReplaybdError } from '../base/errors.ts';
import { removeDeadSockets } from '../base/unix-socket.ts';
import { Attachment, type AttachmentReport } from '../daemon/attachment.ts';
import { startControl, type Control } from '../daemon/control.ts';
import { attachmentHandlers } from '../daemon/attachment-handlers.ts';
import type { Runtime } from '../daemon/runtime.ts';
import type { Frontend } from '../frontend/frontend.ts';
import { startFuse } from '../frontend/fuse/fuse-frontend.ts';
import { fusePermitted } from '../frontend/fuse/permitted.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { recoverStale } from '../frontend/fuse/stale.ts';
import { FuseThreads } from '../frontend/fuse/threads.ts';
import { startNbd } from '../frontend/nbd/server.ts';
import { requireTargets } from '../frontend/tcmu/kernel/configfs.ts';
import { startTcmu } from '../frontend/tcmu/tcmu-frontend.ts';
import { VHOST_USER_SOCKET_SUFFIX } from '../frontend/vhost-user/prepare.ts';
import { startVhostUser } from '../frontend/vhost-user/server.ts';
import type { UpperKind } from '../image/lsmt/upper-map.ts';
import { formatQuality } from '../prefetch/quality.ts';
import { port, positiveNumber } from './arguments.ts';
import { formatUpper } from './control-format.ts';
import { SOCKET_SUFFIX } from './control-socket.ts';
import {
  addRuntimeOptions,
  addTraceOptions,
  openRuntime,
  workloadOf,
  type RuntimeFlags,
  type TraceFlags,
} from './runtime-options.ts';
import { interruptible, untilAborted } from './terminal.ts';

interface AttachFlags extends RuntimeFlags, TraceFlags {
  frontend: 'fuse' | 'nbd' | 'tcmu' | 'vhost-user';
  id: string;
  mount?: string;
  loop: boolean;
  socket?: string;
  nbdSocket?: string;
  nbdPort?: number;
  vhostSocket?: string;
  timeLimit?: number;
  untilIdle?: number;
  upper?: string;
  upperKind?: UpperKind;
  json?: boolean;
}

const FUSE_WORKERS = 2;
const NBD_SOCKET_SUFFIX = '.nbd';
/** Ends a recording while the device goes on; SIGUSR1 is Node's own. */
const RECORD_STOP_SIGNAL = 'SIGUSR2';

/** `replaybd attach`: an image as a block device, until it is detached or interrupted. */
export function register(program: Command): void {
  const command = program
    .command('attach')
    .description(
      'serve an image as a block device until Ctrl-C, SIGTERM or a control call; ' +
        'SIGUSR2 ends the recording',
    )
    .argument('<image>', 'config.v1.json or an image reference')
    .addOption(
      new Option('--frontend <kind>', 'how to reach it')
        .choices(['fuse', 'nbd', 'tcmu', 'vhost-user'])
        .default('fuse'),
    )
    .option('--id <name>', 'name of the device', deviceId, `d${process.pid}`)
    .option('--mount <dir>', 'mount its file system here (fuse, tcmu)')
    .option('--no-loop', 'do not attach a loop device (fuse); erofs can be mounted without one')
    .addOption(
      new Option('--nbd-socket <path>', 'listen on this unix socket (nbd)').conflicts('nbdPort'),
    )
    .option('--nbd-port <port>', 'listen on this port of 127.0.0.1, 0: a free one (nbd)', port)
    .option('--vhost-socket <path>', 'listen on this unix socket (vhost-user)')
    .option('--upper <dir>', 'make it writable: changes are kept in this folder')
    .addOption(
      new Option(
        '--upper-kind <kind>',
        'of a new writable layer: append (default) or sparse',
      ).choices(['append', 'sparse']),
    )
    .option('--socket <path>', 'control socket (default: in the runtime directory)')
    .option('--time-limit <s>', 'end the recording after so long', positiveNumber)
    .option(
      '--until-idle <s>',
      'end the recording when nothing new was read for so long',
      positiveNumber,
    )
    .option('--json', 'print JSON: one line when the device is ready, one when it is detached');
  addTraceOptions(addRuntimeOptions(command), 'auto').action(attach);
}

function deviceId(text: string): string {
  if (/^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/.test(text)) return text;
  throw new InvalidArgumentError('Expected up to 64 letters, digits, dots, dashes, underscores.');
}

async function attach(target: string, flags: AttachFlags, command: Command): Promise<void> {
  checkFrontend(flags, command);
  const runtime = await openRuntime(flags);
  try {
    await interruptible((signal) => serve(runtime, target, flags, signal));
  } finally {
    await runtime.close();
  }
}

async function serve(
  runtime: Runtime,
  target: string,
  flags: AttachFlags,
  signal: AbortSignal,
): Promise<void> {
  const threads = flags.frontend === 'fuse' ? new FuseThreads(FUSE_WORKERS) : null;
  const attachment = await openAttachment(runtime, target, flags, signal).catch(
    (error: unknown) => {
      threads?.close();
      throw error;
    },
  );
  const detached = new AbortController();
  let control: Control | null = null;
  let frontend: Frontend | null = null;
  const stopRecording = (): void => {
    attachment.stopRecording('request').catch((error: unknown) => {
      runtime.log.error({ signal: RECORD_STOP_SIGNAL }, messageOf(error));
    });
  };
  process.on(RECORD_STOP_SIGNAL, stopRecording);
  try {
    await clearLeftovers(flags);
    control = await startControl({
      socketPath: flags.socket ?? defaultControlSocket(flags.id),
      handlers: attachmentHandlers(runtime, attachment, () => detached.abort()),
      log: runtime.log,
    });
    frontend = await startFrontend(attachment, threads, flags, runtime);
    announce(attachment, frontend, control, flags);
    await untilAborted(AbortSignal.any([signal, detached.signal]));
  } finally {
    process.off(RECORD_STOP_SIGNAL, stopRecording);
    await frontend?.close();
    threads?.close();
    await control?.close();
    await attachment.close();
  }
  printReport(await attachment.close(), flags);
}

/** A flag of the other front end would go unheeded, so it is wrong usage. */
function checkFrontend(flags: AttachFlags, command: Command): void {
  if (flags.upperKind !== undefined && flags.upper === undefined) {
    command.error('error: --upper-kind is for --upper');
  }
  if (flags.frontend === 'nbd') {
    if (flags.mount !== undefined) {
      command.error('error: --mount is for --frontend fuse: a client mounts an NBD device itself');
    }
  }
  if (flags.frontend !== 'vhost-user' && flags.vhostSocket !== undefined) {
    command.error('error: --vhost-socket is for --frontend vhost-user');
  }
  if (flags.frontend === 'vhost-user' && flags.mount !== undefined) {
    command.error('error: --mount is not for --frontend vhost-user: its guest mounts the device');
  }
  if (flags.frontend !== 'fuse' && !flags.loop) {
    command.error('error: --no-loop is for --frontend fuse');
  }
  if (flags.frontend === 'nbd') return;
  if (flags.nbdSocket !== undefined) command.error('error: --nbd-socket is for --frontend nbd');
  if (flags.nbdPort !== undefined) command.error('error: --nbd-port is for --frontend nbd');
  if (flags.frontend === 'vhost-user') return;
  if (flags.frontend === 'tcmu') return requireTargets();
  const permission = fusePermitted(flags.loop);
  if (permission.ok) return;
  throw new ReplaybdError(
    'ERR_FUSE_NOT_PERMITTED',
    `FUSE cannot be used here: ${permission.reason}. Use --frontend nbd, which needs no privileges.`,
  );
}

async function openAttachment(
  runtime: Runtime,
  target: string,
  flags: AttachFlags,
  signal: AbortSignal,
): Promise<Attachment> {
  return await Attachment.open(runtime, {
    id: flags.id,
    target,
    mode: flags.mode,
    workload: workloadOf(flags),
    readerThreads: flags.frontend === 'fuse' ? FUSE_WORKERS : 0,
    signal,
    ...(flags.trace === undefined ? {} : { tracePath: flags.trace }),
    ...(flags.budget === undefined ? {} : { budgetBytes: flags.budget * 2 ** 20 }),
    ...(flags.timeLimit === undefined ? {} : { recordLimitMs: flags.timeLimit * 1000 }),
    ...(flags.untilIdle === undefined ? {} : { recordUntilIdleMs: flags.untilIdle * 1000 }),
    ...(flags.upper === undefined ? {} : { upperFolder: flags.upper }),
    ...(flags.upperKind === undefined ? {} : { upperKind: flags.upperKind }),
  });
}

/** What killed runs left in the runtime directory. */
async function clearLeftovers(flags: AttachFlags): Promise<void> {
  const folder = defaultRuntimeDirectory();
  await removeDeadSockets(folder, [SOCKET_SUFFIX, NBD_SOCKET_SUFFIX, VHOST_USER_SOCKET_SUFFIX]);
  if (flags.frontend === 'fuse') await recoverStale(folder);
}

async function startFrontend(
  attachment: Attachment,
  threads: FuseThreads | null,
  flags: AttachFlags,
  runtime: Runtime,
): Promise<Frontend> {
  const { log } = runtime;
  if (flags.frontend === 'nbd') {
    const socketPath =
      flags.nbdSocket ?? (flags.nbdPort === undefined ? defaultNbdSocket(flags.id) : undefined);
    return await startNbd(attachment.device, {
      log,
      ...(socketPath === undefined ? {} : { socketPath }),
      ...(flags.nbdPort === undefined ? {} : { port: flags.nbdPort }),
    });
  }
  if (flags.frontend === 'vhost-user') {
    const folder = flags.vhostSocket === undefined ? ensureRuntimeDirectory() : '';
    const socketPath = flags.vhostSocket ?? join(folder, `${flags.id}${VHOST_USER_SOCKET_SUFFIX}`);
    return await startVhostUser(attachment.device, { socketPath, log });
  }
  if (flags.frontend === 'tcmu') {
    return await startTcmu(attachment.device, {
      log,
      onFailed: (error) => log.fatal({ device: flags.id }, messageOf(error)),
      ...(flags.mount === undefined ? {} : { mount: flags.mount }),
    });
  }
  return await startFuse(attachment.device, {
    workers: FUSE_WORKERS,
    loop: flags.loop,
    log,
    ...(threads === null ? {} : { threads }),
    ...(flags.mount === undefined ? {} : { mount: flags.mount }),
  });
}

function announce(
  attachment: Attachment,
  frontend: Frontend,
  control: Control,
  flags: AttachFlags,
): void {
  const facts = {
    id: flags.id,
    mode: attachment.mode,
    frontend: frontend.kind,
    path: frontend.path,
    mount: flags.mount ?? null,
    control: control.socketPath,
    virtualSizeBytes: attachment.device.virtualSizeBytes,
    readyMs: attachment.report().readyMs,
  };
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(facts)}\n`);
    return;
  }
  const mounted = facts.mount === null ? '' : ` mounted on ${facts.mount}`;
  process.stdout.write(
    `${facts.path}${mounted}: ${attachment.image.name}, ${facts.mode} mode, ` +
      `ready in ${facts.readyMs.toFixed(0)} ms. Ctrl-C detaches.\n`,
  );
}

function printReport(report: AttachmentReport, flags: AttachFlags): void {
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(report)}\n`);
    return;
  }
  const { trace } = report;
  const traceLine = trace === null ? '' : `trace        ${trace.records} records, ${trace.path}\n`;
  process.stdout.write(formatQuality(report.quality) + traceLine + formatUpper(report));
}

function defaultControlSocket(id: string): string {
  return join(ensureRuntimeDirectory(), `${id}${SOCKET_SUFFIX}`);
}

function defaultNbdSocket(id: string): string {
  return join(ensureRuntimeDirectory(), `${id}${NBD_SOCKET_SUFFIX}`);
}

function ensureRuntimeDirectory(): string {
  const folder = defaultRuntimeDirectory();
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new ReplaybdError(
      'ERR_RUNTIME_DIRECTORY',
      `${folder}: cannot be made (${codeOf(error)}). Set XDG_RUNTIME_DIR to a folder of yours.`,
    );
  }
  return folder;
}
