import type { FileOrder } from '../../src/trace/file-report.ts';
import type { DiffOrder } from './diff-order.ts';
import type { DiskOrder } from './disk-axis.ts';
import { LINK_DEFAULT, type LinkChoice } from './link.ts';
import type { Colouring } from './scene.ts';
import type { Viewport } from './viewport.ts';

export const VIEW_IDS = [
  'overview',
  'timeline',
  'layers',
  'files',
  'live',
  'diff',
  'simulate',
] as const;
export type ViewId = (typeof VIEW_IDS)[number];

/** A list's cursor: a place in what is shown after filtering. */
export type ListCursors = Readonly<Partial<Record<ViewId, number>>>;

export interface TimelineState {
  readonly order: DiskOrder;
  readonly colouring: Colouring;
  /** Symbols instead of blocks. */
  readonly isSymbols: boolean;
  readonly viewport: Viewport;
  /** Windows to go back to. */
  readonly former: readonly Viewport[];
}

export interface DiffState {
  /** By file where the files are known. */
  readonly isByFile: boolean;
  readonly order: DiffOrder;
  /** The file whose parts are looked at, and which of them; null for the list. */
  readonly file: { readonly path: string; readonly part: number } | null;
}

/** What a person has chosen: everything that keys change. */
export interface AppState {
  readonly view: ViewId;
  readonly isHelp: boolean;
  /** Which trace is looked at. */
  readonly trace: number;
  readonly selected: ListCursors;
  /** What is shown of each view, as it was typed. */
  readonly filters: Readonly<Partial<Record<ViewId, string>>>;
  readonly timeline: TimelineState;
  readonly fileOrder: FileOrder;
  readonly diff: DiffState;
  readonly link: LinkChoice;
  /** The device whose replay is watched; null for the list. */
  readonly device: string | null;
}

export const WHOLE: Viewport = { window: null, cursor: null };

export function initialState(view: ViewId): AppState {
  return {
    view,
    isHelp: false,
    trace: 0,
    selected: {},
    filters: {},
    timeline: {
      order: 'lba',
      colouring: 'layers',
      isSymbols: false,
      viewport: WHOLE,
      former: [],
    },
    fileOrder: 'time',
    diff: { isByFile: true, order: 'changed', file: null },
    link: LINK_DEFAULT,
    device: null,
  };
}

/** Looks at another view. */
export function goTo(state: AppState, view: ViewId): AppState {
  return { ...state, view, isHelp: false };
}

/** Moves the cursor of a list of so many rows. */
export function moveSelected(state: AppState, key: string, length: number, page: number): AppState {
  const selected = movedPlace(selectedOf(state, length), key, length, page);
  if (selected === null) return state;
  return { ...state, selected: { ...state.selected, [state.view]: selected } };
}

/** Where a key leads from a place in a list of so many rows; null for a key that leads nowhere. */
export function movedPlace(from: number, key: string, length: number, page: number): number | null {
  const steps: Readonly<Record<string, number>> = {
    ...{ up: -1, down: 1, pageup: -page, pagedown: page, home: -length, end: length },
  };
  const step = steps[key];
  if (step === undefined) return null;
  return Math.min(Math.max(0, from + step), Math.max(0, length - 1));
}

/** The selected row of the present view; 0 when there is none. */
export function selectedOf({ selected, view }: AppState, length: number): number {
  return Math.min(selected[view] ?? 0, Math.max(0, length - 1));
}

/** Which rows of a list are shown in so many, so that the selected one is among them. */
export function firstShown(selected: number, length: number, shown: number): number {
  return Math.min(Math.max(0, selected - Math.floor(shown / 2)), Math.max(0, length - shown));
}

/** The text by which the present view is filtered; '' for all. */
export function filterOf({ filters, view }: AppState): string {
  return filters[view] ?? '';
}
