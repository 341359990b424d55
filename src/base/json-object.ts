import { messageOf, ReplaybdError } from './errors.ts';

/**
 * A JSON object of a configuration file that knows where it stands, so that a wrong type or value is
 * reported with file and path. An absent key takes its default; keys that nobody asks for are
 * ignored, and remembered.
 */
export class JsonObject {
  readonly #fields: Readonly<Record<string, unknown>>;
  readonly #name: string;
  readonly #path: string;
  readonly #asked = new Set<string>();
  /** By key, so that whoever asks for a section again gets the one whose keys are remembered. */
  readonly #sections = new Map<string, JsonObject>();
  readonly #items: JsonObject[] = [];

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

  /** Paths, without the leading `$.`, of the keys that were not asked for, here and in members. */
  get ignored(): string[] {
    const own = Object.keys(this.#fields).filter((key) => !this.#asked.has(key));
    const paths = own.map((key) => `${this.#path}.${key}`.slice('$.'.length));
    const members = [...this.#sections.values(), ...this.#items];
    return [...paths, ...members.flatMap((member) => member.ignored)];
  }

  has(key: string): boolean {
    return Object.hasOwn(this.#fields, key);
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

  /** One of some words; '' when absent. */
  word<Word extends string>(key: string, words: readonly Word[]): Word | '' {
    const value = this.string(key);
    const word = words.find((one) => one === value);
    if (word !== undefined) return word;
    if (value === '') return '';
    throw this.#wrong(key, `one of ${words.join(', ')}`, value);
  }

  /** A path of a URL, or '' when absent: it begins with a slash. */
  urlPath(key: string): string {
    const value = this.string(key);
    if (value === '' || /^\/[!-~]*$/.test(value)) return value;
    throw this.#wrong(key, 'a path that begins with /', value);
  }

  /** Whether it is absent, or null itself. */
  isNull(key: string): boolean {
    return (this.#get(key) ?? null) === null;
  }

  /** Any finite number; 0 when absent. */
  number(key: string): number {
    const value = this.#get(key);
    if (value === undefined) return 0;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw this.#wrong(key, 'a number', value);
  }

  /** A number from 0 to 1; null when absent, or null itself. */
  share(key: string): number | null {
    if (this.isNull(key)) return null;
    const value = this.number(key);
    if (value >= 0 && value <= 1) return value;
    throw this.#wrong(key, 'a number from 0 to 1', value);
  }

  /** An http or https URL; '' when absent. */
  httpUrl(key: string): string {
    const value = this.string(key);
    if (value === '' || /^https?:$/.test(URL.parse(value)?.protocol ?? '')) return value;
    throw this.#wrong(key, 'an http:// or https:// URL', value);
  }

  /** A number above 0; null when absent. */
  positive(key: string): number | null {
    const value = this.#get(key);
    if (value === undefined) return null;
    if (typeof value !== 'number' || !Number.isFinite(value) || value <= 0) {
      throw this.#wrong(key, 'a number above 0', value);
    }
    return value;
  }

  /** An integer, by default from 0 to 2^53 - 1. */
  natural(key: string, absent: number, range: { min?: number; max?: number } = {}): number {
    const { min = 0, max = Number.MAX_SAFE_INTEGER } = range;
    const value = this.#get(key);
    if (value === undefined) return absent;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) {
      return value;
    }
    const bounds = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw this.#wrong(key, `a whole number ${bounds}`, value);
  }

  /** Null when absent, or null itself. */
  object(key: string): JsonObject | null {
    const value = this.#get(key);
    if (value === undefined || value === null) return null;
    const known = this.#sections.get(key);
    if (known !== undefined) return known;
    const section = JsonObject.#of(value, this.#name, `${this.#path}.${key}`);
    this.#sections.set(key, section);
    return section;
  }

  /** A list of strings; empty when absent. */
  strings(key: string): string[] {
    const value = this.#get(key);
    if (value === undefined) return [];
    if (Array.isArray(value)) {
      const items: unknown[] = value;
      if (items.every((item) => typeof item === 'string')) return items;
    }
    throw this.#wrong(key, 'a list of strings', value);
  }

  /** A list of objects; empty when absent. */
  list(key: string): JsonObject[] {
    const value = this.#get(key);
    if (value === undefined) return [];
    if (!Array.isArray(value)) throw this.#wrong(key, 'a list', value);
    const members = value.map((item: unknown, i) =>
      JsonObject.#of(item, this.#name, `${this.#path}.${key}[${i}]`),
    );
    this.#items.push(...members);
    return members;
  }

  #get(key: string): unknown {
    this.#asked.add(key);
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
