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

const BUFFER_BYTES = 1024 * 1024;

/**
 * Gathers small writes, and writes what it gathered while more comes. A failed write rejects a later
 * call; `flush` ends when everything is written.
 */
export class BufferedSink implements PatchableSink {
  readonly #sink: PatchableSink;
  #filling = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #spare = Buffer.allocUnsafeSlow(BUFFER_BYTES);
  #filledBytes = 0;
  #writing: Promise<{ error: unknown } | null> = Promise.resolve(null);

  constructor(sink: PatchableSink) {
    this.#sink = sink;
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let taken = 0; taken < bytes.length;) {
      if (this.#filledBytes === BUFFER_BYTES) await this.#turn();
      const length = Math.min(bytes.length - taken, BUFFER_BYTES - this.#filledBytes);
      this.#filling.set(bytes.subarray(taken, taken + length), this.#filledBytes);
      this.#filledBytes += length;
      taken += length;
    }
  }

  async patch(offset: number, bytes: Uint8Array): Promise<void> {
    await this.flush();
    await this.#sink.patch(offset, bytes);
  }

  async flush(): Promise<void> {
    if (this.#filledBytes > 0) await this.#turn();
    await this.#written();
  }

  /** Waits until nothing is on its way to the sink any more, whether that went well or not. */
  async settle(): Promise<void> {
    await this.#writing;
  }

  /** Hands the gathered bytes over; the next ones go to the other buffer. */
  async #turn(): Promise<void> {
    await this.#written();
    const bytes = this.#filling.subarray(0, this.#filledBytes);
    [this.#filling, this.#spare] = [this.#spare, this.#filling];
    this.#filledBytes = 0;
    this.#writing = this.#sink.write(bytes).then(
      () => null,
      (error: unknown) => ({ error }),
    );
  }

  async #written(): Promise<void> {
    const failure = await this.#writing;
    if (failure !== null) throw failure.error;
  }
}
