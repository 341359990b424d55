import { commonKey, withFilter } from './model/keys.ts';
import type { Session } from './model/session.ts';
import { initialState, type AppState, type ViewId } from './model/state.ts';
import { bodyOf, reportRows, screenRows } from './views/screen.ts';
import type { ViewContext } from './views/view.ts';
import { viewOf } from './views/views.ts';

export interface StoreOptions {
  readonly session: Session;
  readonly view: ViewId;
  /** No colours. */
  readonly isColourless: boolean;
  /** Text that is read from top to bottom, instead of a screen. */
  readonly isPlain: boolean;
}

export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** What is on the screen: the session's data, and what a person has chosen to see of it. */
export class Store {
  readonly session: Session;
  readonly isPlain: boolean;
  readonly #isColourless: boolean;
  readonly #listeners = new Set<() => void>();
  #state: AppState;
  #version = 0;

  constructor({ session, view, isColourless, isPlain }: StoreOptions) {
    this.session = session;
    this.isPlain = isPlain;
    this.#isColourless = isColourless;
    this.#state = initialState(view);
  }

  get state(): AppState {
    return this.#state;
  }

  /** Whether the present view has something to filter. */
  get canFilter(): boolean {
    return viewOf(this.#state.view).keys.some(([key]) => key === '/');
  }

  /** Rises whenever what is shown may be another. */
  readonly version = (): number => this.#version;

  /** Calls `listener` after each change, until the function that it gives is called. */
  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  /** The session's data have changed. */
  changed(): void {
    this.#version += 1;
    for (const listener of this.#listeners) listener();
  }

  /** A key, by its name; see View. */
  press(key: string, size: Size): void {
    const context = bodyOf(this.#context(size));
    const state =
      commonKey(this.#state, key, this.session.traces.length) ??
      viewOf(this.#state.view).onKey(context, key);
    // Text does not change by itself while it is read aloud: any key shows it as it is now.
    if (this.isPlain && state === this.#state) this.changed();
    else this.#set(state);
  }

  /** Shows what has the text in it. */
  filter(text: string): void {
    this.#set(withFilter(this.#state, text));
  }

  /** The screen, row by row. */
  rows(size: Size, isTyping = false): string[] {
    const context = this.#context(size);
    return this.isPlain ? reportRows(context) : screenRows(context, isTyping);
  }

  #context({ columns, rows }: Size): ViewContext {
    const { session } = this;
    return { session, state: this.#state, columns, rows, isColourless: this.#isColourless };
  }

  #set(state: AppState): void {
    if (state === this.#state) return;
    this.#state = state;
    this.changed();
  }
}
