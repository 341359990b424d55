import type { FileHandle } from 'node:fs/promises';

/** Where a writer of a format puts its bytes, in order. */
export interface ByteSink {
  /** The bytes may be reused by the caller once the promise resolves. */
  write(bytes: Uint8Array): Promise<void>;
}

/** A sink whose earlier bytes may be rewritten: headers are known only at the end. */
export interface PatchableSink extends ByteSink {
  /** Rewrites bytes at `offset` (from where this sink began) that were written before. */
  patch(offset: number, bytes: Uint8Array): Promise<void>;
}

/** Appends to an open file. */
export class FileSink implements PatchableSink {
  readonly #file: FileHandle;
  #position = 0;

  constructor(file: FileHandle) {
    this.#file = file;
  }

  get bytesWritten(): number {
    return this.#position;
  }

  async write(bytes: Uint8Array): Promise<void> {
    await writeFully(this.#file, bytes, this.#position);
    this.#position += bytes.length;
  }

  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    await writeFully(this.#file, bytes, offset);
  }
}

async function writeFully(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await file.write(bytes, done, bytes.length - done, position + done);
    done += bytesWritten;
  }
}
