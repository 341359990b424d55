import { spawn } from 'node:child_process';
import { codeOf, ReplaybdError } from '../../base/errors.ts';

export interface ProgramOptions {
  signal?: AbortSignal | undefined;
}

export interface ProgramOutcome {
  /** Null when a signal ended it. */
  exitCode: number | null;
  stdout: string;
  stderr: string;
}

/** Of what a program prints; the rest is cut off. */
const OUTPUT_BYTES_MAX = 256 * 1024;

/**
 * Runs a program of the system to its end, in English. `hint` says where it comes from when it is
 * not there: ERR_PROGRAM_MISSING. Rejects with the signal's reason once the program has ended.
 */
export function runProgram(
  program: string,
  args: readonly string[],
  hint: string,
  { signal }: ProgramOptions = {},
): Promise<ProgramOutcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      // What formats and repairs file systems is not in everybody's path.
      env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(signal === undefined ? {} : { signal }),
    });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout = (stdout + text).slice(0, OUTPUT_BYTES_MAX);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(0, OUTPUT_BYTES_MAX);
    });
    // When it is aborted 'error' comes at once, but its files are in use until 'close'.
    let failure: Error | null = null;
    child.on('error', (error) => {
      failure = error;
    });
    child.on('close', (exitCode) => {
      if (signal?.aborted === true) reject(signal.reason as Error);
      else if (failure === null) resolve({ exitCode, stdout, stderr });
      else if (codeOf(failure) === 'ENOENT') reject(missing(program, hint));
      else reject(failure);
    });
  });
}

function missing(program: string, hint: string): ReplaybdError {
  return new ReplaybdError('ERR_PROGRAM_MISSING', `${program}: not found. ${hint}`);
}

/** The error for a program that did not do what it was run for; what it said is in the message. */
export function programError(
  program: string,
  subject: string,
  { exitCode, stdout, stderr }: ProgramOutcome,
): ReplaybdError {
  const said = `${stderr}\n${stdout}`.trim().replaceAll(/\s+/g, ' ').slice(0, 1000);
  const how = exitCode === null ? 'was killed' : `ended with ${exitCode}`;
  return new ReplaybdError('ERR_PROGRAM', `${subject}: ${program} ${how}: ${said}`);
}
