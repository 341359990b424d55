import { traceLimits } from '../base/limits.ts';
import { isTruncated, type TracePlan } from '../trace/trace.ts';
import { complain } from './terminal.ts';

/** Says on standard error that a trace's plan lacks ranges; gives whether it does, for JSON. */
export function tellTruncated(name: string, plan: TracePlan): boolean {
  const truncated = isTruncated(plan);
  if (truncated) {
    complain(
      `${name}: the plan has ${traceLimits.planRangesMax} ranges, which is as many as a plan may have: ` +
        'what is due later is left out.',
    );
  }
  return truncated;
}
