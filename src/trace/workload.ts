import { ReplaybdError } from '../base/errors.ts';
import { traceLimits } from '../base/limits.ts';
import { describeWorkload, type TraceWorkload } from './trace.ts';

/** A workload as people and programs name it; what is absent is empty. */
export interface WorkloadWords {
  /** Of the entrypoint. */
  readonly workload?: readonly string[];
  readonly workloadArgs?: readonly string[];
  /** `NAME=value`, those that tell workloads apart. */
  readonly workloadEnv?: readonly string[];
}

const KEY = /^[0-9a-f]{64}$/;
const VARIABLE = /^[^=\0]+=/;

/** Whether a text is a workload's key, and not a word of one. */
export function isWorkloadKey(text: string): boolean {
  return KEY.test(text);
}

/**
 * The workload of some words, whose key names its traces. The order of variables does not matter, and
 * of two of one name the later counts. Throws ERR_WORKLOAD for what no trace can hold.
 */
export function workloadOfWords(words: WorkloadWords): TraceWorkload {
  const { workload = [], workloadArgs = [], workloadEnv = [] } = words;
  for (const [what, texts] of Object.entries({ workload, workloadArgs, workloadEnv })) {
    check(what, texts);
  }
  const variables = new Map<string, string>();
  for (const text of workloadEnv) {
    const name = VARIABLE.exec(text)?.[0];
    if (name === undefined) throw wrong('workloadEnv', 'NAME=value', "one without a name and '='");
    variables.set(name, text);
  }
  return describeWorkload(workload, workloadArgs, [...variables.values()].sort());
}

/** The words again, without what is empty. */
export function wordsOfWorkload(workload: TraceWorkload): WorkloadWords {
  const { entrypoint, args, env } = workload;
  return {
    ...(entrypoint.length === 0 ? {} : { workload: entrypoint }),
    ...(args.length === 0 ? {} : { workloadArgs: args }),
    ...(env.length === 0 ? {} : { workloadEnv: env }),
  };
}

/** A workload on one line, variables first as a shell has them; '' when it has no words. */
export function workloadText({ env, entrypoint, args }: Omit<TraceWorkload, 'key'>): string {
  return [...env, ...entrypoint, ...args].join(' ');
}

function check(what: string, texts: readonly string[]): void {
  const { workloadItemsMax, textLengthMax } = traceLimits;
  if (texts.length > workloadItemsMax) {
    throw wrong(what, `at most ${workloadItemsMax} words`, String(texts.length));
  }
  const longest = texts.reduce((most, { length }) => Math.max(most, length), 0);
  if (longest > textLengthMax) {
    throw wrong(what, `words of at most ${textLengthMax} characters`, `one of ${longest}`);
  }
}

/** Values are not repeated: a variable may hold a secret. */
function wrong(what: string, expected: string, found: string): ReplaybdError {
  return new ReplaybdError('ERR_WORKLOAD', `${what}: expected ${expected}, found ${found}.`, {
    errno: 'EINVAL',
  });
}
