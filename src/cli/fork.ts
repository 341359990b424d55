import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { controlRequest } from '../daemon/control-client.ts';
import type { ForkParameters } from '../daemon/control-parameters.ts';
import type { ForkFacts } from '../daemon/fork.ts';
import { describeWorkload } from '../trace/trace.ts';
import { deviceFlags, devicePath, findDevice, print, socketOption } from './control-socket.ts';
import { addRuntimeOptions, openRuntime, type RuntimeFlags } from './runtime-options.ts';
import { formatSnapshot } from './snapshot.ts';
import { interruptible } from './terminal.ts';

interface ForkFlags extends RuntimeFlags {
  socket?: string;
  upperKind?: 'append' | 'sparse';
  json?: boolean;
}

/** `replaybd fork`: another device of what one holds now. */
export function register(program: Command): void {
  const command = program
    .command('fork')
    .description(
      'make another device of what one holds now: a folder with a configuration to attach, of the ' +
        'same lowers and an empty writable layer',
    )
    .argument('<device>', "an attached device's name or control socket, or a config.v1.json")
    .argument('<folder>', 'a new folder for the other device')
    .addOption(socketOption())
    .addOption(
      new Option(
        '--upper-kind <kind>',
        'append or sparse (default: as that of the device)',
      ).choices(['append', 'sparse']),
    )
    .option('--json', 'print JSON');
  addRuntimeOptions(command).action(fork);
}

async function fork(source: string, folder: string, flags: ForkFlags): Promise<void> {
  const parameters: ForkParameters = {
    folder: resolve(folder),
    ...(flags.upperKind === undefined ? {} : { kind: flags.upperKind }),
  };
  const facts = source.endsWith('.json')
    ? await forkConfiguration(source, parameters, flags)
    : await forkAttached(source, parameters, flags);
  print(flags, facts, formatFork(facts));
}

async function forkAttached(
  name: string,
  parameters: ForkParameters,
  { socket }: Pick<ForkFlags, 'socket'>,
): Promise<ForkFacts> {
  const { socketPath, device } = await findDevice(
    deviceFlags(name, socket === undefined ? {} : { socket }),
  );
  const path = devicePath(device, 'fork');
  return (await controlRequest(socketPath, 'POST', path, parameters)) as ForkFacts;
}

/** A device that is not attached is opened for it, and closed again. */
async function forkConfiguration(
  target: string,
  parameters: ForkParameters,
  flags: ForkFlags,
): Promise<ForkFacts> {
  const { Attachment } = await import('../daemon/attachment.ts');
  const runtime = await openRuntime(flags);
  try {
    return await interruptible(async (signal) => {
      const common = { id: 'fork', workload: describeWorkload([], []), signal };
      const attachment = await Attachment.open(runtime, { ...common, target, mode: 'off' });
      try {
        return await attachment.fork(parameters);
      } finally {
        await attachment.close();
      }
    });
  } finally {
    await runtime.close();
  }
}

function formatFork({ config, upper, lowers, snapshot, elapsedMs }: ForkFacts): string {
  return (
    (snapshot === null ? '' : formatSnapshot(snapshot)) +
    `forked       ${config}, ${lowers} lowers, in ${elapsedMs.toFixed(1)} ms\n` +
    `its writes   ${upper.data}\n`
  );
}
