import assert from 'node:assert/strict';
import type { Blob } from '../blob/blob.ts';
import { RemoteBlob } from '../blob/fetch/remote-blob.ts';
import { openStack, stackOn, type Stack } from '../image/stack.ts';

interface Entry {
  readonly stack: Stack;
  users: number;
}

/**
 * Opened stacks by the digests of their layers. Devices of one image share its index and its jump
 * tables, which are most of what an open image takes. What is here was verified when it was opened, and a
 * digest names the same bytes for ever; files, which somebody may replace, are opened each time.
 */
export class SharedStacks {
  readonly #entries = new Map<string, Entry>();

  /**
   * Opens a stack, or takes what another device has opened. Devices that open the same one at once do
   * so by themselves, so that none waits for another's registry. To be released by the same blobs.
   */
  async open(blobs: readonly Blob[]): Promise<Stack> {
    const key = keyOf(blobs);
    if (key === null) return await openStack(blobs);
    const present = this.#entries.get(key);
    const opened = present === undefined ? await openStack(blobs) : null;
    const entry = this.#entries.get(key);
    if (entry !== undefined) {
      entry.users += 1;
      return stackOn(entry.stack, blobs);
    }
    assert.ok(opened !== null);
    this.#entries.set(key, { stack: opened, users: 1 });
    return opened;
  }

  /** The device that opened a stack of these blobs is closed. */
  release(blobs: readonly Blob[]): void {
    const key = keyOf(blobs);
    const entry = key === null ? undefined : this.#entries.get(key);
    if (key === null || entry === undefined) return;
    entry.users -= 1;
    if (entry.users === 0) this.#entries.delete(key);
  }
}

/** Null for a stack that cannot be shared. */
function keyOf(blobs: readonly Blob[]): string | null {
  const isShared = blobs.every((blob) => blob instanceof RemoteBlob);
  return isShared ? blobs.map((blob) => `${blob.digest} ${blob.sizeBytes}`).join(' ') : null;
}
