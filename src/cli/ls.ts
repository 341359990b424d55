import type { Command } from 'commander';
import { formatDevices } from './control-format.ts';
import { findDevices, print } from './control-socket.ts';

interface ListFlags {
  socket?: string;
  json?: boolean;
}

/** `replaybd ls`: the devices of the daemon, and of processes of `replaybd attach`. */
export function register(program: Command): void {
  program
    .command('ls')
    .description('list attached devices')
    .option('--socket <path>', 'only those of the process with this control socket')
    .option('--json', 'print JSON')
    .action(list);
}

async function list(flags: ListFlags): Promise<void> {
  const devices = await findDevices(flags.socket);
  // `socketPath` is what `control` was called before.
  const facts = devices.map((device) => ({ ...device, control: device.socketPath }));
  print(flags, facts, formatDevices(devices));
}
