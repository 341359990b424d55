import { messageOf, ReplaybdError } from './errors.ts';

/**
 * A JSON object of a configuration file that knows where it stands, so that a wrong type is
 * reported with file and path. An absent key takes its default; unknown keys are ignored.
 */
export class JsonObject {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #name: string;
  readonly #path: string;

  private constructor(fields: object, name: string, path: string) {
    this.#fields = fields as Readonly<Record<string, unknown>>;
    this.#name = name;
    this.#path = path;
  }

  /** Parses the text of file `name`. ERR_CONFIG_JSON, or ERR_CONFIG_TYPE when it is no object. */
  static parse(text: string, name: string): JsonObject {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw new ReplaybdError('ERR_CONFIG_JSON', `${name}: not valid JSON: ${messageOf(error)}`, {
        cause: error,
      });
    }
    return JsonObject.#of(value, name, '$');
  }

  static #of(value: unknown, name: string, path: string): JsonObject {
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      return new JsonObject(value, name, path);
    }
    throw typeError(name, path, 'an object', value);
  }

  string(key: string, absent = ''): string {
    const value = this.#get(key);
    if (value === undefined) return absent;
    if (typeof value !== 'string') throw this.#wrong(key, 'a string', value);
    return value;
  }

  boolean(key: string, absent = false): boolean {
    const value = this.#get(key);
    if (value === undefined) return absent;
    if (typeof value !== 'boolean') throw this.#wrong(key, 'true or false', value);
    return value;
  }

  /** An integer from 0 to 2^53 - 1. */
  natural(key: string, absent: number): number {
    const value = this.#get(key);
    if (value === undefined) return absent;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw this.#wrong(key, 'a whole number of at least 0', value);
    }
    return value;
  }

  /** Null when absent. */
  object(key: string): JsonObject | null {
    const value = this.#get(key);
    if (value === undefined) return null;
    return JsonObject.#of(value, this.#name, `${this.#path}.${key}`);
  }

  /** A list of objects; empty when absent. */
  list(key: string): JsonObject[] {
    const value = this.#get(key);
    if (value === undefined) return [];
    if (!Array.isArray(value)) throw this.#wrong(key, 'a list', value);
    return value.map((item: unknown, i) =>
      JsonObject.#of(item, this.#name, `${this.#path}.${key}[${i}]`),
    );
  }

  #get(key: string): unknown {
    return Object.hasOwn(this.#fields, key) ? this.#fields[key] : undefined;
  }

  #wrong(key: string, expected: string, value: unknown): ReplaybdError {
    return typeError(this.#name, `${this.#path}.${key}`, expected, value);
  }
}

/** Names the type only: a value in the wrong place may be a secret. */
function typeError(name: string, path: string, expected: string, value: unknown): ReplaybdError {
  const type = value === null ? 'null' : Array.isArray(value) ? 'a list' : typeof value;
  const found = typeof value === 'number' ? String(value) : type;
  return new ReplaybdError(
    'ERR_CONFIG_TYPE',
    `${name}: ${path}: expected ${expected}, found ${found}`,
  );
}
