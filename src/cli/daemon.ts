import type { Command } from 'commander';
import { messageOf } from '../base/errors.ts';
import { startDaemon, type Daemon } from '../daemon/daemon.ts';
import { defaultRuntimeDirectory } from '../frontend/fuse/runtime-directory.ts';
import { serviceConfigOf } from './registry-options.ts';
import { addRuntimeOptions, openRuntime, type RuntimeFlags } from './runtime-options.ts';
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
    .option('--state <dir>', 'where devices are described (default: in the runtime directory)')
    .option('--json', 'print JSON: one line when the daemon answers');
  addRuntimeOptions(command).action(daemon);
}

async function daemon(flags: DaemonFlags): Promise<void> {
  const service = await serviceConfigOf(flags);
  const runtime = await openRuntime(flags);
  await interruptible(async (signal) => {
    const failed = new AbortController();
    const running = await startDaemon({
      ...{ runtime, service, log: runtime.log, directory: defaultRuntimeDirectory() },
      ...(flags.socket === undefined ? {} : { socketPath: flags.socket }),
      ...(flags.state === undefined ? {} : { stateFolder: flags.state }),
      onFatal: (error) => {
        runtime.log.fatal({ err: error }, `the daemon ends: ${messageOf(error)}`);
        process.exitCode = 1;
        failed.abort();
      },
    });
    announce(running, flags);
    await untilAborted(AbortSignal.any([signal, failed.signal]));
    // A second signal ends the process at once.
    await running.close();
  });
}

function announce({ socketPath }: Daemon, flags: DaemonFlags): void {
  process.stdout.write(
    flags.json === true
      ? `${JSON.stringify({ pid: process.pid, control: socketPath })}\n`
      : `listening on ${socketPath}\n`,
  );
}
