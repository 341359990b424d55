import { InvalidArgumentError, type Command } from 'commander';
import { workloadOfWords, type WorkloadWords } from '../trace/workload.ts';
import type { TraceWorkload } from '../trace/trace.ts';

/** The flags that name a workload. */
export interface WorkloadFlags {
  workload?: string[];
  workloadArgs?: string[];
  workloadEnv?: string[];
}

/** Adds the flags of every command that names a workload. */
export function addWorkloadOptions(command: Command): Command {
  return command
    .option('--workload <word...>', 'names the workload: traces are kept by image and workload')
    .option('--workload-args <word...>', 'its arguments, where they tell workloads apart')
    .option(
      '--workload-env <name>',
      'a variable that tells workloads apart: NAME=value, or NAME as it is set here; repeat it',
      addVariable,
    );
}

/** What the flags say, as an attach request has it. */
export function workloadWords(flags: WorkloadFlags): WorkloadWords {
  const { workload, workloadArgs, workloadEnv } = flags;
  return {
    ...(workload === undefined ? {} : { workload }),
    ...(workloadArgs === undefined ? {} : { workloadArgs }),
    ...(workloadEnv === undefined ? {} : { workloadEnv }),
  };
}

/** The workload that the flags name. Throws ERR_WORKLOAD. */
export function workloadOf(flags: WorkloadFlags): TraceWorkload {
  return workloadOfWords(workloadWords(flags));
}

/** Whether any of the flags is there. */
export function namesWorkload(flags: WorkloadFlags): boolean {
  return Object.keys(workloadWords(flags)).length > 0;
}

function addVariable(text: string, before: string[] = []): string[] {
  const [name] = text.split('=', 1);
  if (name === '') throw new InvalidArgumentError('Expected NAME or NAME=value.');
  if (text.includes('=')) return [...before, text];
  const value = process.env[name];
  if (value === undefined) throw new InvalidArgumentError(`${name} is not set here.`);
  return [...before, `${name}=${value}`];
}
