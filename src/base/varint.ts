import { ReplaybdError } from './errors.ts';

/** Little-endian base-128 integers up to 2^53 - 1, as bytes appended to a growing buffer. */
export class VarintWriter {
  #bytes = new Uint8Array(1024);
  #length = 0;

  writeUnsigned(value: number): void {
    if (this.#length + 8 > this.#bytes.length) this.#grow();
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#length++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#length++] = rest;
  }

  /** Zigzag: 0, -1, 1, -2 ... become 0, 1, 2, 3 ... so that small magnitudes stay short. */
  writeSigned(value: number): void {
    this.writeUnsigned(value < 0 ? -2 * value - 1 : 2 * value);
  }

  finish(): Uint8Array {
    return this.#bytes.slice(0, this.#length);
  }

  #grow(): void {
    const larger = new Uint8Array(this.#bytes.length * 2);
    larger.set(this.#bytes);
    this.#bytes = larger;
  }
}

/** Reads what VarintWriter wrote; every malformed input is an ERR_VARINT. */
export class VarintReader {
  readonly #bytes: Uint8Array;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#position === this.#bytes.length;
  }

  readUnsigned(): number {
    let value = 0;
    let scale = 1;
    for (;;) {
      const byte = this.#bytes[this.#position];
      if (byte === undefined) throw new ReplaybdError('ERR_VARINT', 'varint: ends too early');
      this.#position += 1;
      value += (byte & 0x7f) * scale;
      if (value > Number.MAX_SAFE_INTEGER) {
        throw new ReplaybdError('ERR_VARINT', 'varint: larger than 2^53 - 1');
      }
      if (byte < 0x80) {
        if (byte === 0 && scale > 1) {
          throw new ReplaybdError('ERR_VARINT', 'varint: longer than it needs to be');
        }
        return value;
      }
      scale *= 0x80;
      if (scale > 2 ** 49) throw new ReplaybdError('ERR_VARINT', 'varint: longer than 8 bytes');
    }
  }

  readSigned(): number {
    const value = this.readUnsigned();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }
}
