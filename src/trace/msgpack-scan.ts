import { traceLimits } from '../base/limits.ts';
import { damaged } from './trace-errors.ts';

/**
 * Walks one msgpack value without building it and refuses what a trace never has: extension types
 * (the library would build dates, regular expressions, errors or record classes of them), deep
 * nesting, too many values, map keys that are not short distinct texts, trailing bytes.
 * Source: the msgpack specification, "Formats".
 */
export function scanMsgpack(bytes: Uint8Array): void {
  const scanner = new Scanner(bytes);
  scanner.value(0);
  if (scanner.position !== bytes.length) {
    throw damaged('msgpack', `one value of ${scanner.position} bytes`, `${bytes.length} bytes`);
  }
}

const KEY_BYTES_MAX = 31;

class Scanner {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #values = 0;
  position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(depth: number): void {
    this.#values += 1;
    if (this.#values > traceLimits.valuesMax || depth > traceLimits.nestingMax) {
      throw damaged('msgpack', 'a few shallow values', `too many or too deep at ${this.position}`);
    }
    const marker = this.#number(1);
    if (marker < 0x80 || marker >= 0xe0) return;
    if (marker < 0x90) this.#map(marker & 0x0f, depth);
    else if (marker < 0xa0) this.#array(marker & 0x0f, depth);
    else if (marker < 0xc0) this.#skip(marker & 0x1f);
    else this.#wide(marker, depth);
  }

  #wide(marker: number, depth: number): void {
    switch (marker) {
      case 0xc0: // nil
      case 0xc2: // false
      case 0xc3: // true
        return;
      case 0xc4: // bin 8
      case 0xd9: // str 8
        return this.#skip(this.#number(1));
      case 0xc5: // bin 16
      case 0xda: // str 16
        return this.#skip(this.#number(2));
      case 0xc6: // bin 32
      case 0xdb: // str 32
        return this.#skip(this.#number(4));
      case 0xcc: // uint 8
      case 0xd0: // int 8
        return this.#skip(1);
      case 0xcd: // uint 16
      case 0xd1: // int 16
        return this.#skip(2);
      case 0xca: // float 32
      case 0xce: // uint 32
      case 0xd2: // int 32
        return this.#skip(4);
      case 0xcb: // float 64
      case 0xcf: // uint 64
      case 0xd3: // int 64
        return this.#skip(8);
      case 0xdc: // array 16
        return this.#array(this.#number(2), depth);
      case 0xde: // map 16
        return this.#map(this.#number(2), depth);
      default: // ext, fixext, array 32, map 32, never used
        throw damaged('msgpack', 'no extension and no huge value', `byte 0x${marker.toString(16)}`);
    }
  }

  #array(count: number, depth: number): void {
    for (let i = 0; i < count; i += 1) this.value(depth + 1);
  }

  #map(count: number, depth: number): void {
    const keys = new Set<string>();
    for (let i = 0; i < count; i += 1) {
      const marker = this.#number(1);
      const length = marker - 0xa0;
      if (length < 0 || length > KEY_BYTES_MAX) {
        throw damaged('msgpack', 'a short text as map key', `byte 0x${marker.toString(16)}`);
      }
      const start = this.position;
      this.#skip(length);
      const key = Buffer.from(this.#bytes.subarray(start, this.position)).toString('latin1');
      if (keys.has(key)) throw damaged('msgpack', 'distinct map keys', `'${key}' twice`);
      keys.add(key);
      this.value(depth + 1);
    }
  }

  #number(width: 1 | 2 | 4): number {
    const at = this.position;
    this.#skip(width);
    if (width === 1) return this.#view.getUint8(at);
    return width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #skip(length: number): void {
    if (this.position + length > this.#bytes.length) {
      throw damaged('msgpack', `${length} bytes at ${this.position}`, 'the end of the file');
    }
    this.position += length;
  }
}
