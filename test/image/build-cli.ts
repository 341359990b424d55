// `replaybd image ...` alone, so that a test needs no other command.
import { Command } from 'commander';
import { register } from '../../src/cli/image.ts';

const program = new Command('replaybd');
register(program);
try {
  await program.parseAsync();
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
