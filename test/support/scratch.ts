import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** A folder, and everything that has to be undone before it goes: last come, first undone. */
export class Scratch {
  readonly folder: string;
  readonly #undo: (() => unknown)[] = [];

  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), 'replaybd-e2e-'));
    this.atEnd(() => rmSync(this.folder, { recursive: true, force: true }));
  }

  path(...names: string[]): string {
    return join(this.folder, ...names);
  }

  atEnd(undo: () => unknown): void {
    this.#undo.push(undo);
  }

  /** Undoes all, also what comes after a step that fails. */
  async close(): Promise<void> {
    const errors: unknown[] = [];
    for (let undo = this.#undo.pop(); undo !== undefined; undo = this.#undo.pop()) {
      try {
        await undo();
      } catch (error) {
        errors.push(error);
      }
    }
    if (errors.length > 0) throw new AggregateError(errors, 'a test could not be cleaned up');
  }
}

/** Scratch of one test, gone when it ends. */
export function scratchOf(t: TestContext): Scratch {
  const scratch = new Scratch();
  t.after(() => scratch.close());
  return scratch;
}
