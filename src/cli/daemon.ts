import { resolve } from 'node:path';
import type { Command } from 'commander';
import { messageOf } from '../base/errors.ts';
import type { Daemon } from '../daemon/daemon.ts';
import { tellReady } from '../daemon/readiness.ts';
import type { Service } from '../daemon/service.ts';
import type { ServiceConfig } from '../daemon/service-config.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { serviceConfigOf } from './registry-options.ts';
import {
  addRuntimeOptions,
  addTraceSettings,
  addSpanOption,
  logLevelOption,
  openRuntime,
  type RuntimeFlags,
} from './runtime-options.ts';
import { interruptible, untilAborted } from './terminal.ts';

interface DaemonFlags extends RuntimeFlags {
  socket?: string;
  state?: string;
  json?: boolean;
}

/** `replaybd daemon`: many devices in one process, until it is told to end. */
export function register(program: Command): void {
  const command = program
    .command('daemon')
    .description(
      'serve many devices, as control calls ask for them, until SIGTERM or Ctrl-C; devices that ' +
        'the daemon before had are attached again',
    )
    .option('--socket <path>', 'control socket (default: daemon.socket in the runtime directory)')
    .option('--state <dir>', 'where devices are described (default: beside the socket)')
    .option('--json', 'print JSON: one line when the daemon answers');
  const logLevel = logLevelOption().default('info', "overlaybd.json's, or info");
  addTraceSettings(addSpanOption(addRuntimeOptions(command, logLevel))).action(daemon);
}

async function daemon(flags: DaemonFlags, command: Command): Promise<void> {
  const config = await serviceConfigOf(flags);
  const { Service } = await import('../daemon/service.ts');
  const isLevelGiven = command.getOptionValueSource('logLevel') === 'cli';
  const service = new Service({ config, ...(isLevelGiven ? { logLevel: flags.logLevel } : {}) });
  try {
    await serve(flags, service, config);
  } catch (error) {
    service.log.fatal({ err: error }, `the daemon ends: ${messageOf(error)}`);
    throw error;
  } finally {
    await service.close();
  }
}

async function serve(
  flags: DaemonFlags,
  service: Service,
  config: ServiceConfig | null,
): Promise<void> {
  const { startDaemon } = await import('../daemon/daemon.ts');
  const { log, notifier } = service;
  const runtime = await openRuntime(flags, log);
  service.watch(runtime);
  await interruptible(async (signal) => {
    const failed = new AbortController();
    const running = await startDaemon({
      ...{ runtime, service: config, log, directory: defaultRuntimeDirectory() },
      ...(flags.socket === undefined ? {} : { socketPath: resolve(flags.socket) }),
      ...(flags.state === undefined ? {} : { stateFolder: resolve(flags.state) }),
      audit: (scope, values) => service.audit(scope, values),
      onFatal: (error) => {
        log.fatal({ err: error }, `the daemon ends: ${messageOf(error)}`);
        process.exitCode = 1;
        failed.abort();
      },
    });
    announce(running, flags);
    const ending = AbortSignal.any([signal, failed.signal]);
    try {
      await tellReady(running, { notifier, clock: runtime.clock, log, signal: ending });
      await untilAborted(ending);
    } finally {
      notifier.stopping();
      // A second signal ends the process at once.
      await running.close();
    }
  });
}

function announce({ socketPath }: Daemon, flags: DaemonFlags): void {
  process.stdout.write(
    flags.json === true
      ? `${JSON.stringify({ pid: process.pid, control: socketPath })}\n`
      : `listening on ${socketPath}\n`,
  );
}
