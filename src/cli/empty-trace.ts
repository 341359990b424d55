import type { TraceRecords } from '../trace/trace.ts';
import { complain } from './terminal.ts';

/** Says on standard error that a trace that was made has no records; `hint` says what to do. */
export function tellEmpty(name: string, { count }: TraceRecords, hint: string): void {
  if (count > 0) return;
  complain(`${name}: the trace has no records, and nobody will replay it. ${hint}`);
}
