import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import type { StoredTraceFacts } from '../../src/trace/store-describe.ts';
import { Attached } from './attached.ts';
import { cliJson } from './cli.ts';
import { nbdRead } from './nbd-read.ts';
import type { Scratch } from './scratch.ts';
import type { TestImage } from './test-image.ts';

const MIB = 2 ** 20;
/** Parts of a test image's disk, and both: each holds much. */
export const FIRST = { offset: 0, length: 4 * MIB };
export const SECOND = { offset: 4 * MIB, length: 8 * MIB };
export const BOTH = { offset: 0, length: 12 * MIB };

/** What one start reads, and how it is attached: in mode auto, by its reference, unless it says more. */
export interface Run {
  read: { offset: number; length: number };
  args?: readonly string[];
}

/** One start of a test image over NBD, with an empty cache and the scratch's trace store; its report. */
export async function runImage(
  scratch: Scratch,
  image: TestImage,
  { read, args = [] }: Run,
): Promise<AttachmentReport> {
  const attached = await startImage(scratch, image.reference, args);
  const bytes = await nbdRead(scratch.path('nbd'), read.offset, read.length);
  const raw = readFileSync(image.raw).subarray(read.offset, read.offset + read.length);
  assert.ok(bytes.equals(raw), 'the right bytes');
  return await attached.detach();
}

/** The device of such a start; `nbd` in the scratch is its socket. */
export async function startImage(
  scratch: Scratch,
  reference: string,
  args: readonly string[] = [],
): Promise<Attached> {
  return await Attached.start(scratch, [
    ...[reference, '--frontend', 'nbd', '--nbd-socket', scratch.path('nbd')],
    ...['--cache', 'none', '--trace-dir', scratch.path('traces'), '--mode', 'auto', ...args],
  ]);
}

/** What the scratch's store holds. */
export async function storedTraces(scratch: Scratch): Promise<StoredTraceFacts[]> {
  return await cliJson(scratch, ['trace', 'ls', '--trace-dir', scratch.path('traces')]);
}

/** The one trace that it holds. */
export async function onlyTrace(scratch: Scratch): Promise<StoredTraceFacts> {
  const [one, ...others] = await storedTraces(scratch);
  assert.equal(others.length, 0);
  return one;
}
