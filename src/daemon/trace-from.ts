/** Where a trace is looked for that nobody named. */
export const TRACE_FROM = ['any', 'store', 'registry'] as const;
export type TraceFrom = (typeof TRACE_FROM)[number];
