export type FindingLevel = 'ok' | 'warning' | 'problem';

/** What one check found. */
export interface Finding {
  /** Stable, e.g. 'module.tcm_loop'. */
  name: string;
  level: FindingLevel;
  /** What is the case. */
  found: string;
  /** What follows from it; '' when all is well. */
  meaning: string;
  /** What to do about it; '' when nothing. */
  fix: string;
}

export function ok(name: string, found: string): Finding {
  return { name, level: 'ok', found, meaning: '', fix: '' };
}

/** Something that is wanted is missing; what is needed works. */
export function warning(name: string, found: string, meaning: string, fix: string): Finding {
  return { name, level: 'warning', found, meaning, fix };
}

/** Something that is needed is missing. */
export function problem(name: string, found: string, meaning: string, fix: string): Finding {
  return { name, level: 'problem', found, meaning, fix };
}
