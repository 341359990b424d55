/** How what a code stands for is shown. */
export interface Look {
  /** Where there are no colours, and where colours are not enough. */
  readonly symbol: string;
  /** Of a terminal with 256 colours. */
  readonly colour: number;
  /** Of a picture. */
  readonly hex: string;
  readonly label: string;
  /** The label where there is little room. */
  readonly short: string;
}

/** Code 1 is the first look; code 0 is nothing. */
export type Palette = readonly Look[];

export const NOTHING = 0;

/** Apart for eyes that see fewer colours: those of Okabe and Ito, and grey for all that follow. */
const COLOURS: readonly (readonly [colour: number, hex: string])[] = [
  [32, '#0072b2'],
  [214, '#e69f00'],
  [36, '#009e73'],
  [175, '#cc79a7'],
  [117, '#56b4e9'],
  [166, '#d55e00'],
  [185, '#c9bb1f'],
];
const OTHER = [246, '#8a8a8a'] as const;

/** A look for each of some things, in order. */
export function paletteOf(names: readonly Pick<Look, 'label' | 'short'>[]): Palette {
  return names.map((name, index) => {
    const [colour, hex] = COLOURS[index] ?? OTHER;
    // Beyond 36 they have a symbol in common, as they have a colour.
    return { symbol: index < 36 ? index.toString(36) : '+', colour, hex, ...name };
  });
}

/** How many looks of `paletteOf` have a colour of their own. */
export const OWN_COLOURS = COLOURS.length;
