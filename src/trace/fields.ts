import { traceLimits } from '../base/limits.ts';
import { damaged, tooLarge } from './trace-errors.ts';

const SHA256_DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Reads a decoded map by its known keys; anything else is ERR_TRACE_FORMAT or ERR_TRACE_LIMIT. */
export class Fields {
  readonly #name: string;
  readonly #values: Map<string, unknown>;

  /** `extra`: keys beyond the known ones are let through (a newer minor version wrote them). */
  constructor(name: string, value: unknown, keys: readonly string[], extra: boolean) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw damaged(name, 'a map', kindOf(value));
    }
    this.#name = name;
    this.#values = new Map(Object.entries(value));
    const unknown = [...this.#values.keys()].find((key) => !keys.includes(key));
    if (unknown !== undefined && !extra) throw damaged(name, `keys ${keys.join(', ')}`, unknown);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  get(key: string): unknown {
    if (!this.#values.has(key)) throw damaged(this.#path(key), 'a value', 'none');
    return this.#values.get(key);
  }

  integer(key: string, min: number, max: number): number {
    return integerOf(this.#path(key), this.get(key), min, max);
  }

  text(key: string): string {
    return textOf(this.#path(key), this.get(key));
  }

  digestOrNull(key: string): string | null {
    const value = this.get(key);
    return value === null ? null : digestOf(this.#path(key), value);
  }

  texts(key: string): string[] {
    const items = this.array(key, traceLimits.workloadItemsMax);
    return items.map((item) => textOf(this.#path(key), item));
  }

  array(key: string, max: number): unknown[] {
    const value: unknown = this.get(key);
    if (!Array.isArray(value)) throw damaged(this.#path(key), 'an array', kindOf(value));
    if (value.length > max) throw tooLarge(this.#path(key), max, value.length);
    return value;
  }

  /** A column, of at least `bytesMin` bytes. */
  bytes(key: string, bytesMin = 0): Uint8Array {
    const value = this.get(key);
    if (!(value instanceof Uint8Array)) throw damaged(this.#path(key), 'bin', kindOf(value));
    if (value.length < bytesMin) {
      throw damaged(this.#path(key), `at least ${bytesMin} bytes`, String(value.length));
    }
    return value;
  }

  #path(key: string): string {
    return this.#name === '' ? key : `${this.#name}.${key}`;
  }
}

export function integerOf(path: string, value: unknown, min: number, max: number): number {
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < min || value > max) {
    const found = typeof value === 'number' ? String(value) : kindOf(value);
    throw damaged(path, `an integer from ${min} to ${max}`, found);
  }
  return value;
}

export function digestOf(path: string, value: unknown): string {
  if (typeof value !== 'string' || !SHA256_DIGEST.test(value)) {
    throw damaged(path, 'sha256: and 64 lower case hex digits', kindOf(value));
  }
  return value;
}

function textOf(path: string, value: unknown): string {
  if (typeof value !== 'string') throw damaged(path, 'a text', kindOf(value));
  if (value.length > traceLimits.textLengthMax) {
    throw tooLarge(path, traceLimits.textLengthMax, value.length);
  }
  return value;
}

function kindOf(value: unknown): string {
  if (value === null) return 'nil';
  if (Array.isArray(value)) return 'an array';
  if (value instanceof Uint8Array) return `bin of ${value.length} bytes`;
  return typeof value === 'object' ? 'a map' : `a ${typeof value}`;
}
