import { InvalidArgumentError } from 'commander';
import type { Platform } from '../registry/manifest.ts';

// What a command line's words may be. Anything else is wrong usage.

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

/** `os/architecture[/variant]`. */
export function platform(text: string): Platform {
  const [os = '', architecture = '', variant] = text.split('/');
  if (os === '' || architecture === '') throw new InvalidArgumentError('expected os/architecture.');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}
