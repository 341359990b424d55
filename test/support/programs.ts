import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';

const OUTPUT_BYTES_MAX = 256 * 1024 * 1024;

export interface ProgramResult {
  code: number | string | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end, whatever that is. */
export async function run(program: string, ...args: string[]): Promise<ProgramResult> {
  return await new Promise((resolve) => {
    execFile(program, args, { maxBuffer: OUTPUT_BYTES_MAX }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : (error.code ?? null), stdout, stderr });
    });
  });
}

/** Standard output of a program that must succeed. */
export async function output(program: string, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await run(program, ...args);
  assert.equal(code, 0, `${program} ${args.join(' ')}: ${stderr}`);
  return stdout;
}
