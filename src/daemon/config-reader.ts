import { ReplaybdError } from '../base/errors.ts';

/** One field's type, what it is when absent, and what it may be. */
export interface FieldSpec<Value> {
  type: 'string' | 'boolean' | 'integer' | 'number';
  fallback: Value;
  /** What is accepted, in words, and the test for it. */
  accepts?: { what: string; holds: (value: Value) => boolean };
}

export type ObjectSpec<Fields> = { [Key in keyof Fields]: FieldSpec<Fields[Key]> };

/** Reads typed fields out of a JSON document and remembers which keys nobody asked for. */
export class ConfigReader {
  readonly #name: string;
  readonly #ignored: string[] = [];

  /** `name` is the file's, for messages. */
  constructor(name: string) {
    this.#name = name;
  }

  /** JSON paths of unknown keys, in the order they were met. */
  get ignored(): readonly string[] {
    return this.#ignored;
  }

  /** Parses a document that has to be an object. Throws ERR_CONFIG. */
  document(text: string): Record<string, unknown> {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      throw this.#error('$', 'JSON', error instanceof Error ? error.message : String(error));
    }
    return this.#object(value, '$');
  }

  /** The fields of the object at a key; absent and null are an empty one. Throws ERR_CONFIG. */
  sectionFields<Fields>(
    parent: Record<string, unknown>,
    key: string,
    spec: ObjectSpec<Fields>,
  ): Fields {
    const value = Object.hasOwn(parent, key) ? (parent[key] ?? {}) : {};
    return this.fields(this.#object(value, key), spec, { path: key });
  }

  /**
   * The fields of an object, defaults for those absent. Keys that are neither in `spec` nor in
   * `sections` count as ignored. Throws ERR_CONFIG for a wrong type or value.
   */
  fields<Fields>(
    source: Record<string, unknown>,
    spec: ObjectSpec<Fields>,
    place: { path: string; sections?: readonly string[] },
  ): Fields {
    const prefix = place.path === '' ? '' : `${place.path}.`;
    for (const key of Object.keys(source)) {
      if (!Object.hasOwn(spec, key) && place.sections?.includes(key) !== true) {
        this.#ignored.push(`${prefix}${key}`);
      }
    }
    const fields: Partial<Fields> = {};
    for (const key of keysOf(spec)) {
      const found = Object.hasOwn(source, key) ? source[String(key)] : undefined;
      const field = spec[key];
      fields[key] =
        found === undefined ? field.fallback : this.#value(field, found, prefix + String(key));
    }
    return fields as Fields;
  }

  #value<Value>(spec: FieldSpec<Value>, found: unknown, path: string): Value {
    if (!hasType(spec, found)) throw this.#error(path, articled(spec.type), describe(found));
    if (spec.accepts !== undefined && !spec.accepts.holds(found)) {
      throw this.#error(path, spec.accepts.what, describe(found));
    }
    return found;
  }

  #object(value: unknown, path: string): Record<string, unknown> {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw this.#error(path, 'an object', describe(value));
    }
    return value as Record<string, unknown>;
  }

  #error(path: string, expected: string, found: string): ReplaybdError {
    return new ReplaybdError(
      'ERR_CONFIG',
      `${this.#name}: ${path}: expected ${expected}, found ${found}.`,
      { errno: 'EINVAL' },
    );
  }
}

function hasType<Value>(spec: FieldSpec<Value>, found: unknown): found is Value {
  if (spec.type === 'integer') return Number.isSafeInteger(found);
  if (spec.type === 'number') return Number.isFinite(found);
  return typeof found === spec.type;
}

function keysOf<Fields extends object>(spec: Fields): (keyof Fields)[] {
  return Object.keys(spec) as (keyof Fields)[];
}

function articled(type: string): string {
  return type === 'integer' ? 'an integer' : `a ${type}`;
}

/** A value's kind, with the value where it is short and cannot be a secret. */
function describe(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string') return value.length <= 32 ? `the string '${value}'` : 'a string';
  return `the ${typeof value} ${String(value)}`;
}
