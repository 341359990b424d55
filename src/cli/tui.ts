import type { Command } from 'commander';
import { collectWords, wholeNumber } from './arguments.ts';
import { addRuntimeOptions, type RuntimeFlags } from './runtime-options.ts';
import { controlSource } from '../../tui/control-source.ts';
import { runTui } from '../../tui/run.ts';

interface TuiFlags extends RuntimeFlags {
  socket?: string;
  image?: string[];
  view?: number;
  plain?: boolean;
}

/** `replaybd tui`: traces and running devices in a terminal. */
export function register(program: Command): void {
  const command = program
    .command('tui')
    .description('look at traces, and at running devices, in the terminal')
    .argument('[trace...]', 'trace files; the first two can be compared')
    .option('--socket <path>', 'control socket of the process to watch (default: as ls finds them)')
    .option(
      '--image <image>',
      'config.v1.json or a registry reference: names the files; may be repeated, one for each trace',
      collectWords,
    )
    .option('--view <number>', 'the view to begin with, 1 to 7', wholeNumber(1, 7))
    .option('--plain', 'text without pictures, as for screen readers (or INK_SCREEN_READER=true)');
  addRuntimeOptions(command).action(tui);
}

async function tui(tracePaths: string[], flags: TuiFlags, command: Command): Promise<void> {
  const { image, view, socket } = flags;
  if (image !== undefined && tracePaths.length === 0) {
    command.error('error: --image names the files of a trace; name the trace too');
  }
  if (image !== undefined && image.length > tracePaths.length) {
    command.error(
      `error: ${image.length} images for ${tracePaths.length} traces; name one for each`,
    );
  }
  await runTui({
    tracePaths,
    ...(view === undefined ? {} : { view }),
    isPlain: flags.plain === true || process.env.INK_SCREEN_READER === 'true',
    source: controlSource(async () => {
      const { findDevices } = await import('./control-socket.ts');
      return await findDevices(socket);
    }),
    ...(image === undefined
      ? {}
      : {
          findFiles: async (traces, signal) => {
            const { filesOfTraces } = await import('./tui-files.ts');
            return await filesOfTraces(traces, image, flags, signal);
          },
        }),
    stdin: process.stdin,
    stdout: process.stdout,
    env: process.env,
  });
}
