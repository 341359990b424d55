import { InvalidArgumentError } from 'commander';
import { GRANULE_BYTES, simulateLimits } from '../base/limits.ts';
import type { Platform } from '../registry/manifest.ts';

// What a command line's words may be. Anything else is wrong usage.

/** An option that may be repeated. */
export function collect<T>(parse: (text: string) => T): (text: string, before?: T[]) => T[] {
  return (text, before = []) => [...before, parse(text)];
}

/** The same of plain words. */
export const collectWords = collect((text) => text);

/** A number above 0, fractions included. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value) && value > 0) return value;
  throw new InvalidArgumentError('Expected a number above 0.');
}

/** Parses whole numbers from `min` to `max`, in decimal digits. */
export function wholeNumber(
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= min && value <= max) return value;
    const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
    throw new InvalidArgumentError(`Expected a whole number ${range}.`);
  };
}

const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
};

/** A time such as 90s, 15m, 12h or 30d, in milliseconds. */
export function duration(text: string): number {
  const [, count = '', unit = ''] = /^(\d{1,9}(?:\.\d{1,6})?)([smhd])$/.exec(text) ?? [];
  if (unit !== '') return Number(count) * UNIT_MS[unit];
  throw new InvalidArgumentError('Expected a time such as 12h or 30d.');
}

/** A part of the whole, 0 to 1. */
export function share(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value <= 1) return value;
  throw new InvalidArgumentError('Expected a number from 0 to 1.');
}

/**
 * A number of bytes, with a unit if it has one, as coreutils have them: `20MB` is 20,000,000, `20M` and
 * `20MiB` are 20 x 1024 x 1024. Rounded down to whole bytes.
 */
export function byteSize(text: string): number {
  const found = /^(\d+(?:\.\d+)?) ?(?:([KMGT])(B|iB)?|B)?$/i.exec(text);
  if (found !== null) {
    const [, digits, letter = '', suffix = ''] = found;
    const step = suffix.toUpperCase() === 'B' ? 1000 : 1024;
    const power = ' KMGT'.indexOf(letter.toUpperCase());
    const bytes = Math.floor(Number(digits) * step ** Math.max(0, power));
    if (Number.isSafeInteger(bytes)) return bytes;
  }
  throw new InvalidArgumentError('Expected bytes such as 20MB, 20MiB or 20971520.');
}

/** A TCP port; 0 stands for any that is free. */
export const port = wholeNumber(0, 65_535);

/** An http or https URL. */
export function httpUrl(text: string): string {
  if (/^https?:$/.test(URL.parse(text)?.protocol ?? '')) return text;
  throw new InvalidArgumentError('Expected an http:// or https:// URL.');
}

/** `os/architecture[/variant]`. */
export function platform(text: string): Platform {
  const [os = '', architecture = '', variant] = text.split('/');
  if (os === '' || architecture === '') throw new InvalidArgumentError('expected os/architecture.');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}

const BANDWIDTH_UNITS: Readonly<Record<string, number>> = {
  kbit: 1e3 / 8,
  mbit: 1e6 / 8,
  gbit: 1e9 / 8,
  'kb/s': 1e3,
  'mb/s': 1e6,
  'gb/s': 1e9,
};

/** A bandwidth with its unit (`100mbit`, `12.5MB/s`), in bytes a second. */
export function bandwidth(text: string): number {
  const units = Object.keys(BANDWIDTH_UNITS).join(', ');
  return withUnit(text, BANDWIDTH_UNITS, `a bandwidth such as 100mbit or 12.5MB/s (${units})`);
}

/** A time with its unit (`20ms`, `0.5s`), in milliseconds; 0 counts. */
export function milliseconds(text: string): number {
  return withUnit(text, { ms: 1, s: 1000, us: 1 / 1000 }, 'a time such as 20ms or 0.5s', 0);
}

/** What one request may bring, with its unit (`256KiB`, `1MiB`): whole granules of 4 KiB, in bytes. */
export function rangeSize(text: string): number {
  const { rangeBytesMax } = simulateLimits;
  const what = `a multiple of 4KiB up to ${rangeBytesMax / 2 ** 20}MiB, such as 256KiB or 1MiB`;
  const bytes = withUnit(text, { kib: 1024, mib: 1024 ** 2 }, what);
  if (bytes % GRANULE_BYTES === 0 && bytes <= rangeBytesMax) return bytes;
  throw new InvalidArgumentError(`Expected ${what}.`);
}

/** Reads a number above `min` (from 0, where that is 0) and its unit, in any case. */
function withUnit(
  text: string,
  units: Readonly<Record<string, number>>,
  what: string,
  min = Number.MIN_VALUE,
): number {
  const [, number = '', unit = ''] = /^(\d+(?:\.\d+)?)\s*([a-z/]+)$/.exec(text.toLowerCase()) ?? [];
  const value = Number(number) * (Object.hasOwn(units, unit) ? units[unit] : NaN);
  if (number !== '' && Number.isFinite(value) && value >= min) return value;
  throw new InvalidArgumentError(`Expected ${what}.`);
}
