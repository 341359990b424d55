import type { AccessSource } from '../timeline.ts';
import type { Look, Palette } from './palette.ts';

/** What became of bytes that a run read, or that were fetched for it. */
export type Kind = AccessSource | 'unused';

const LOOKS: readonly (Look & { readonly kind: Kind })[] = [
  { kind: 'unused', symbol: '-', colour: 240, hex: '#b9b9b9', label: 'unused', short: 'unused' },
  { kind: 'cached', symbol: '·', colour: 246, hex: '#7f8c99', label: 'cached', short: 'cached' },
  {
    kind: 'prefetched',
    symbol: '░',
    colour: 36,
    hex: '#009e73',
    label: 'prefetched',
    short: 'prefetched',
  },
  { kind: 'late', symbol: '▒', colour: 220, hex: '#e6a800', label: 'late', short: 'late' },
  { kind: 'demand', symbol: '█', colour: 202, hex: '#d14a00', label: 'demand', short: 'demand' },
];

/** Worst last, as a cell shows the worst that happened in it. */
export const KINDS: Palette = LOOKS;

/** Its code in a grid. */
export function kindCode(kind: Kind): number {
  return 1 + LOOKS.findIndex((look) => look.kind === kind);
}

export function kindOf(code: number): Kind {
  return LOOKS[code - 1].kind;
}
