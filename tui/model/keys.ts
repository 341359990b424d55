import { goTo, VIEW_IDS, WHOLE, type AppState } from './state.ts';

/** What a terminal's key event tells, as far as it matters. */
export interface KeyEvent {
  readonly upArrow: boolean;
  readonly downArrow: boolean;
  readonly leftArrow: boolean;
  readonly rightArrow: boolean;
  readonly pageUp: boolean;
  readonly pageDown: boolean;
  readonly home: boolean;
  readonly end: boolean;
  readonly return: boolean;
  readonly escape: boolean;
  readonly tab: boolean;
  readonly shift: boolean;
  readonly ctrl: boolean;
  readonly meta: boolean;
}

const VIM: Readonly<Record<string, string>> = {
  ...{ h: 'left', j: 'down', k: 'up', l: 'right', g: 'home', G: 'end' },
};

/** Of what comes with other characters. */
const CONTROLS: Readonly<Record<string, string>> = { '\r': 'enter', '\t': 'tab' };

/**
 * A key event as names, see View. It has several where keys came faster than they were read. What no
 * view knows is left out.
 */
export function keyNames(input: string, key: KeyEvent): string[] {
  const names = characterNames(input);
  if (names.length > 1) return names;
  const name = keyName(input, key);
  return name === '' ? [] : [name];
}

/** The same of characters that came together. */
export function characterNames(input: string): string[] {
  return [...input].map((character) => CONTROLS[character] ?? VIM[character] ?? character);
}

function keyName(input: string, key: KeyEvent): string {
  const named: readonly (readonly [boolean, string])[] = [
    [key.upArrow, 'up'],
    [key.downArrow, 'down'],
    [key.leftArrow, 'left'],
    [key.rightArrow, 'right'],
    [key.pageUp || (key.ctrl && input === 'b'), 'pageup'],
    [key.pageDown || (key.ctrl && input === 'f'), 'pagedown'],
    [key.home, 'home'],
    [key.end, 'end'],
    [key.return, 'enter'],
    [key.escape, 'escape'],
    [key.tab && key.shift, 'backtab'],
    [key.tab, 'tab'],
  ];
  const found = named.find(([isPressed]) => isPressed);
  if (found !== undefined) return found[1];
  return key.ctrl || key.meta ? '' : (VIM[input] ?? input);
}

/** What keys do wherever they are pressed; null when the view has its say. */
export function commonKey(state: AppState, key: string, traces: number): AppState | null {
  if (state.isHelp) return { ...state, isHelp: false };
  if (key === '?') return { ...state, isHelp: true };
  const number = Number(key);
  if (number >= 1 && number <= VIEW_IDS.length && key.length === 1) {
    return goTo(state, VIEW_IDS[number - 1]);
  }
  const place = VIEW_IDS.indexOf(state.view);
  const last = VIEW_IDS.length - 1;
  if (key === 'tab') return goTo(state, VIEW_IDS[place === last ? 0 : place + 1]);
  if (key === 'backtab') return goTo(state, VIEW_IDS[place === 0 ? last : place - 1]);
  if (key === 't' && traces > 1) {
    const timeline = { ...state.timeline, viewport: WHOLE, former: [] };
    return { ...state, trace: (state.trace + 1) % traces, timeline };
  }
  const isDeeper =
    state.view === 'timeline' ||
    (state.view === 'live' && state.device !== null) ||
    (state.view === 'diff' && state.diff.file !== null);
  const isFilterCleared = key === 'escape' && !isDeeper;
  if (isFilterCleared && (state.filters[state.view] ?? '') !== '') {
    return withFilter(state, '');
  }
  return null;
}

/** Shows what has the text in it; lists begin anew. */
export function withFilter(state: AppState, text: string): AppState {
  const { view } = state;
  const timeline =
    view === 'timeline' ? { ...state.timeline, viewport: WHOLE, former: [] } : state.timeline;
  return {
    ...state,
    timeline,
    filters: { ...state.filters, [view]: text },
    selected: { ...state.selected, [view]: 0 },
  };
}
