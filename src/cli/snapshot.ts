import { resolve } from 'node:path';
import { Option, type Command } from 'commander';
import { controlRequest } from '../daemon/control-client.ts';
import type { SnapshotFacts } from '../daemon/live-upper.ts';
import {
  deviceFlags,
  devicePath,
  findDevice,
  print,
  socketOption,
  type ControlFlags,
} from './control-socket.ts';

interface SnapshotFlags extends ControlFlags {
  data?: string;
  index?: string;
  upperKind?: string;
}

/** `replaybd snapshot`: seals what was written to an attached device, which goes on. */
export function register(program: Command): void {
  program
    .command('snapshot')
    .description(
      'seal what was written to an attached device; it goes on with an empty writable layer, and ' +
        'its configuration names both',
    )
    .argument('[device]', 'its name, or the path of its control socket (default: the only one)')
    .addOption(socketOption())
    .option('--data <path>', 'data file of the new writable layer (default: beside the old one)')
    .option('--index <path>', 'its index file; goes with --data')
    .addOption(
      new Option('--upper-kind <kind>', 'append or sparse (default: as the old one)').choices([
        'append',
        'sparse',
      ]),
    )
    .option('--json', 'print JSON')
    .action(snapshot);
}

async function snapshot(
  name: string | undefined,
  flags: SnapshotFlags,
  command: Command,
): Promise<void> {
  const { data, index, upperKind } = flags;
  if ((data === undefined) !== (index === undefined)) {
    command.error('error: --data and --index go together');
  }
  const { socketPath, device } = await findDevice(deviceFlags(name, flags));
  const facts = (await controlRequest(socketPath, 'POST', devicePath(device, 'snapshot'), {
    ...(data === undefined ? {} : { data: resolve(data) }),
    ...(index === undefined ? {} : { index: resolve(index) }),
    ...(upperKind === undefined ? {} : { kind: upperKind }),
  })) as SnapshotFacts;
  print(flags, facts, formatSnapshot(facts));
}

/** A snapshot for people. */
export function formatSnapshot(facts: SnapshotFacts): string {
  const { sealed, upper, config, lowers, pauseMs, flushMs } = facts;
  return (
    `sealed       ${sealed}\n` +
    `writes go to ${upper.data}\n` +
    `described by ${config}, ${lowers} lowers\n` +
    `paused       ${pauseMs.toFixed(1)} ms, of which flushing ${flushMs.toFixed(1)} ms\n`
  );
}
