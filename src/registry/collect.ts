import { publicUrl, RegistryError } from './errors.ts';
import type { BodySink, ResponseHead } from './transport.ts';

/** A sink that keeps a small body whole; ERR_BODY_LENGTH beyond `limitBytes`. */
export class CollectingSink implements BodySink {
  readonly #url: URL;
  readonly #limitBytes: number;
  #chunks: Uint8Array[] = [];
  #length = 0;

  constructor(url: URL, limitBytes: number) {
    this.#url = url;
    this.#limitBytes = limitBytes;
  }

  /** A new response begins: what an earlier one (a challenge, a redirect) said is forgotten. */
  onHead(_head: ResponseHead): void {
    this.#chunks = [];
    this.#length = 0;
  }

  onData(chunk: Uint8Array): void {
    this.#length += chunk.length;
    if (this.#length > this.#limitBytes) {
      throw new RegistryError(
        'ERR_BODY_LENGTH',
        `${publicUrl(this.#url)}: expected a body of at most ${this.#limitBytes} bytes, ` +
          'found a longer one.',
      );
    }
    this.#chunks.push(Uint8Array.from(chunk));
  }

  bytes(): Uint8Array {
    return Buffer.concat(this.#chunks);
  }
}

/** The body as a JSON object; null when it is anything else. */
export function parseJsonObject(bytes: Uint8Array): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(bytes).toString('utf8'));
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
