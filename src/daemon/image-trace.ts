import { stat } from 'node:fs/promises';
import { codeOf, messageOf } from '../base/errors.ts';
import {
  chooseAccelerationTrace,
  readAccelerationFolder,
  unpackAccelerationLayer,
} from '../trace/overlaybd/acceleration-layer.ts';
import { readAnyTrace, type AnyTrace } from '../trace/overlaybd/any-trace.ts';
import type { Runtime } from './runtime.ts';

/** Where an image says its trace is. */
export type TraceSource =
  /** `recordTracePath`: a trace or a list of paths, or an empty file to record to. */
  | { readonly kind: 'file'; readonly path: string }
  /** An acceleration layer: unpacked by the snapshotter, or a blob. */
  | { readonly kind: 'folder'; readonly path: string }
  | { readonly kind: 'layer'; readonly name: string; readonly read: () => Promise<Uint8Array> };

/** What a `recordTracePath` comes to; null when nothing can be made of it. */
export type RecordTrace = { readonly kind: 'record'; readonly path: string } | AnyTrace | null;

/**
 * overlaybd's choice by the state of the file: an empty one is to be recorded to, any other is
 * replayed. One that is not there, or is damaged, is a warning, and as if it were not named.
 */
export async function readRecordTrace(runtime: Runtime, path: string): Promise<RecordTrace> {
  try {
    const facts = await stat(path);
    if (facts.isFile() && facts.size === 0) return { kind: 'record', path };
    return await readAnyTrace(path);
  } catch (error) {
    warn(runtime, path, error);
    return null;
  }
}

/** The trace of an acceleration layer; what cannot be read is a warning, and null. */
export async function readAccelerationTrace(
  runtime: Runtime,
  source: TraceSource & { kind: 'folder' | 'layer' },
): Promise<AnyTrace | null> {
  const name = source.kind === 'folder' ? source.path : source.name;
  try {
    const files =
      source.kind === 'folder'
        ? await readAccelerationFolder(source.path)
        : unpackAccelerationLayer(await source.read(), name);
    return chooseAccelerationTrace(files, name, (error) => warn(runtime, name, error));
  } catch (error) {
    warn(runtime, name, error);
    return null;
  }
}

function warn(runtime: Runtime, trace: string, error: unknown): void {
  runtime.log.warn({ trace, code: codeOf(error) }, `not replayed: ${messageOf(error)}`);
}
