import type { Session } from '../model/session.ts';
import type { AppState, ViewId } from '../model/state.ts';
import type { Line } from '../paint/line.ts';

/** What a view is drawn from, and how much room it has. */
export interface ViewContext {
  readonly session: Session;
  readonly state: AppState;
  readonly columns: number;
  readonly rows: number;
  /** No colours: symbols have to tell things apart. */
  readonly isColourless: boolean;
}

/**
 * A view: what it shows, and what keys do there. Keys are 'up', 'enter' and the like, or characters;
 * hjkl, g and G have become arrows, 'home' and 'end'.
 */
export interface View {
  readonly id: ViewId;
  readonly title: string;
  /** Keys and what they do, the most useful first. */
  readonly keys: readonly (readonly [key: string, what: string])[];
  /** What the help tells beside them, in paragraphs. */
  readonly notes?: readonly string[];
  /** At most `rows` lines of at most `columns` cells; what is more is cut. */
  draw(context: ViewContext): Line[];
  onKey(context: ViewContext, key: string): AppState;
  /** The same as text that is read from top to bottom, without pictures. */
  report(context: ViewContext): Line[];
}
