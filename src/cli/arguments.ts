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

/** A TCP port; 0 stands for any that is free. */
export const port = wholeNumber(0, 65_535);

/** `os/architecture[/variant]`. */
export function platform(text: string): Platform {
  const [os = '', architecture = '', variant] = text.split('/');
  if (os === '' || architecture === '') throw new InvalidArgumentError('expected os/architecture.');
  return { os, architecture, ...(variant === undefined ? {} : { variant }) };
}
