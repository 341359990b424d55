import { Option, type Command } from 'commander';
import { FRONT_ENDS, type FrontEndName } from '../daemon/doctor/check-front-ends.ts';
import type { Diagnosis } from '../daemon/doctor/doctor.ts';
import { DEFAULT_SERVICE_CONFIG_PATH } from '../daemon/service-config.ts';
import { positiveNumber } from './arguments.ts';
import { print } from './control-socket.ts';
import { addRegistryOptions, registryOptions, serviceConfigOf } from './registry-options.ts';
import { cacheOf, type RuntimeFlags } from './runtime-options.ts';

interface DoctorFlags extends Omit<RuntimeFlags, 'logLevel'> {
  registry?: string;
  frontend?: FrontEndName[];
  json?: boolean;
}

const MARKS = { ok: 'ok     ', warning: 'warning', problem: 'PROBLEM' } as const;

/** `replaybd doctor`: what this host lacks, and what to do about it. */
export function register(program: Command): void {
  addRegistryOptions(program.command('doctor'))
    .description('say what this host lacks to serve devices, and what to do about it')
    .option('--registry <image>', 'also ask the registry of this image')
    .addOption(
      new Option(
        '--frontend <name...>',
        'front ends that must work (default: fuse or tcmu)',
      ).choices(FRONT_ENDS),
    )
    .option('--cache <dir>', 'cache folder, or "none" for memory')
    .option('--quota <GiB>', 'room for the cache', positiveNumber)
    .option('--json', 'print JSON')
    .action(run);
}

async function run(flags: DoctorFlags): Promise<void> {
  const { registry: reference } = flags;
  const { examine } = await import('../daemon/doctor/doctor.ts');
  const { createRegistryClient } = await import('../registry/client.ts');
  const diagnosis = await examine({
    config: {
      path: flags.config ?? DEFAULT_SERVICE_CONFIG_PATH,
      load: async () => await serviceConfigOf(flags),
    },
    frontEnds: flags.frontend ?? [],
    cache: (service) => cacheOf(flags, service),
    ...(reference === undefined
      ? {}
      : {
          registry: {
            reference,
            client: (service) => createRegistryClient(registryOptions(flags, service)),
          },
        }),
  });
  print(flags, diagnosis, formatDiagnosis(diagnosis));
  if (!diagnosis.healthy) process.exitCode = 1;
}

/** Each finding a line; what is not well has what follows from it, and what to do, below. */
function formatDiagnosis({ healthy, findings }: Diagnosis): string {
  const lines = findings.flatMap(({ level, name, found, meaning, fix }) => {
    const line = `${MARKS[level]}  ${name}: ${found}`;
    return level === 'ok' ? [line] : [line, `         ${meaning}`, `         do: ${fix}`];
  });
  const verdict = healthy ? 'nothing that is needed is missing' : 'there are problems';
  return `${lines.join('\n')}\n${verdict}\n`;
}
