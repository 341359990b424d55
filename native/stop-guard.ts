import assert from 'node:assert';
import { workerData } from 'node:worker_threads';

/*
 * A thread and the one that started it meet in two shared words:
 *
 *   word 0  BUSY: 1 while the thread must not be stopped; written by the thread (1 from the start)
 *   word 1  ENDING: 1 when the thread is to end; written by the thread that started it
 *
 * The thread writes BUSY, then reads ENDING; the other side writes ENDING, then reads BUSY. So one of
 * them notices: either the other side sees the thread at work and waits, or the thread does not begin.
 */
const BUSY = 0;
const ENDING = 1;

/** The words of a thread that is about to be started. */
export function stopWords(): Int32Array<SharedArrayBuffer> {
  const words = new Int32Array(new SharedArrayBuffer(8));
  words[BUSY] = 1;
  return words;
}

/** The thread is to end, and begins nothing more that must not be stopped. */
export function askToEnd(words: Int32Array<SharedArrayBuffer>): void {
  Atomics.store(words, ENDING, 1);
}

/** After `askToEnd`: blocks until the thread may be stopped, or for so many milliseconds. */
export function waitUntilStoppable(words: Int32Array<SharedArrayBuffer>, ms: number): void {
  Atomics.wait(words, BUSY, 1, Math.max(ms, 0));
}

/**
 * The thread's own side, made first thing in a NativeThread's module. What comes before `leave`, and
 * between `enter` and the next `leave`, is not stopped half-way.
 */
export class StopGuard {
  readonly #words: Int32Array<SharedArrayBuffer>;

  constructor() {
    const { stopWords } = workerData as { stopWords: unknown };
    assert.ok(stopWords instanceof Int32Array && stopWords.buffer instanceof SharedArrayBuffer);
    this.#words = stopWords as Int32Array<SharedArrayBuffer>;
  }

  get isEnding(): boolean {
    return Atomics.load(this.#words, ENDING) === 1;
  }

  /** False when the thread is to end: then it does not begin. */
  enter(): boolean {
    Atomics.store(this.#words, BUSY, 1);
    if (!this.isEnding) return true;
    this.leave();
    return false;
  }

  leave(): void {
    Atomics.store(this.#words, BUSY, 0);
    Atomics.notify(this.#words, BUSY);
  }
}
