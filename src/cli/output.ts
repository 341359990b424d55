import { writeOutputFile, writeToStream } from '../image/output-file.ts';

/** What -o calls standard output. */
export const STANDARD_OUTPUT = '-';

interface ToldFlags {
  readonly output?: string;
  readonly json?: boolean;
}

/**
 * Writes what -o names, in the place of a file that is there. Errors: those of writeOutputFile and
 * writeToStream.
 */
export async function writeOutput(output: string, bytes: Uint8Array): Promise<void> {
  if (output === STANDARD_OUTPUT) await writeToStream(process.stdout, bytes);
  else await writeOutputFile(output, { replace: true }, (file) => file.writeFile(bytes));
}

/** Tells what a command found or did: on standard error when -o has taken standard output. */
export function tell({ output, json }: ToldFlags, facts: unknown, text: string): void {
  const stream = output === STANDARD_OUTPUT ? process.stderr : process.stdout;
  stream.write(json === true ? `${JSON.stringify(facts, null, 2)}\n` : text);
}
