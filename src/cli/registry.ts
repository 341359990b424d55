import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { startEmbeddedRegistry } from '../registry/embedded/server.ts';
import { port, wholeNumber } from './arguments.ts';

interface ServeOptions {
  root: string;
  port: number;
  latency: number;
  rate?: number;
  user?: string;
  passwordFile?: string;
}

/** `replaybd registry serve`: the embedded registry until Ctrl-C. */
export function register(program: Command): void {
  const registry = program.command('registry').description('an OCI registry of our own');
  registry
    .command('serve')
    .description('serve a directory as an OCI registry on 127.0.0.1, optionally over a slow link')
    .requiredOption('--root <dir>', 'directory of the content; made when missing')
    .option('--port <number>', 'TCP port; 0 takes a free one', port, 0)
    .option('--latency <ms>', 'added before the first byte of every answer', wholeNumber(0), 0)
    .option('--rate <bytes/s>', 'bandwidth shared by all answers', wholeNumber(1))
    .option('--user <name>', 'want this user name and a password')
    .option('--password-file <file>', 'file holding the password')
    .action(serve);
}

async function serve(options: ServeOptions, command: Command): Promise<void> {
  const { user, passwordFile } = options;
  if ((user === undefined) !== (passwordFile === undefined)) {
    command.error('error: --user and --password-file belong together');
  }
  const password = passwordFile === undefined ? '' : readFileSync(passwordFile, 'utf8').trimEnd();
  const registry = await startEmbeddedRegistry({
    root: options.root,
    port: options.port,
    link: { latencyMs: options.latency, bytesPerSecond: options.rate ?? null },
    ...(user === undefined ? {} : { auth: { kind: 'bearer', username: user, password } }),
  });
  process.stdout.write(`${registry.url}\n`);
  await new Promise<void>((resolve) => {
    process.once('SIGINT', () => resolve());
    process.once('SIGTERM', () => resolve());
  });
  await registry.close();
}
