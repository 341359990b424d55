import type { Command } from 'commander';
import { positiveNumber } from './arguments.ts';
import { createLog, logLevelOption } from './runtime-options.ts';
import { interruptible } from './terminal.ts';

interface DemoFlags {
  latency: number;
  rate: number;
  nbd?: boolean;
  json?: boolean;
  logLevel: string;
}

const COLUMNS_DEFAULT = 80;
const COLUMNS_MAX = 120;

/** `replaybd demo`: the whole job on this machine alone; `npm start` runs it. */
export function register(program: Command): void {
  program
    .command('demo')
    .description('build an image of this machine, start it cold, record, and start it again')
    .option('--latency <ms>', 'round trip of the link to the registry', positiveNumber, 20)
    .option('--rate <Mbit/s>', 'bandwidth of the link to the registry', positiveNumber, 100)
    .option('--nbd', 'play recorded reads over NBD instead of mounting the device')
    .option('--json', 'print the figures as JSON')
    .addOption(logLevelOption().default('warn'))
    .action(demo);
}

async function demo(flags: DemoFlags): Promise<void> {
  const { runDemo } = await import('../demo/demo.ts');
  const { demoFigures, formatDemo } = await import('../demo/report.ts');
  const log = await createLog(flags);
  const result = await interruptible((signal) =>
    runDemo({
      latencyMs: flags.latency,
      bytesPerSecond: (flags.rate * 1e6) / 8,
      forceNbd: flags.nbd ?? false,
      signal,
      log,
      onProgress: (text) => process.stderr.write(`${text} ...\n`),
    }),
  );
  if (flags.json === true) {
    process.stdout.write(`${JSON.stringify(demoFigures(result))}\n`);
    return;
  }
  const columns = Math.min(process.stdout.columns ?? COLUMNS_DEFAULT, COLUMNS_MAX);
  const color = process.stdout.isTTY && process.env.NO_COLOR === undefined;
  process.stdout.write(`\n${formatDemo(result, columns, color)}`);
}
