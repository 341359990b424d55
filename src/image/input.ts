import { open, type FileHandle } from 'node:fs/promises';
import { openLocalBlob } from '../blob/local-blob.ts';
import type { Blob } from '../blob/blob.ts';
import { messageOf, ReplaybdError } from '../base/errors.ts';
import { readImageConfig, resolveLower, type ImageConfig, type LowerLocation } from './config.ts';
import { exportSource } from './export-source.ts';
import type { ExportSource } from './export.ts';
import { openFileBytes } from './file-bytes.ts';
import type { LayerBytes } from './layer-bytes.ts';
import type { LsmtEntryColumns } from './lsmt/index-entries.ts';
import { mergeLayers } from './lsmt/merged-index.ts';
import { openUpper, type LsmtUpper } from './lsmt/upper.ts';
import { emptyStack, openIndexedStack, type IndexedStack } from './stack.ts';

/** What a command was given to read: an image's configuration, or layer files. */
export interface OpenedInput {
  /** Null when layer files were given. */
  readonly config: ImageConfig | null;
  readonly stack: IndexedStack;
  /** The configuration's writable layer, as it is now. */
  readonly upper: LsmtUpper | null;
  /** Lowers and upper as one disk. */
  readonly source: ExportSource;
  /** What they are merged from, bottom first: their indexes, and the files these point into. */
  readonly entries: readonly LsmtEntryColumns[];
  readonly bytes: readonly LayerBytes[];
  close(): Promise<void>;
}

/** Opens a lower that is not local. */
export type RemoteOpener = (location: LowerLocation & { kind: 'remote' }) => Promise<Blob>;

const PROBE_BYTES = 64;

/**
 * Opens one `config.v1.json`, or layer files, bottom first. An acceleration layer is left out: it
 * holds a trace. Errors: those of the configuration and the formats, and ERR_INPUT_REMOTE for a
 * lower that is in a registry when there is no `openRemote`.
 */
export async function openInput(
  paths: readonly string[],
  openRemote: RemoteOpener = refuseRemote,
): Promise<OpenedInput> {
  const config = await configOf(paths);
  const locations =
    config === null
      ? paths.map((path): LowerLocation => ({ kind: 'file', path }))
      : await locateLowers(config);
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    await Promise.all(closers.splice(0).map((closeOne) => closeOne()));
  };
  try {
    const opening = locations.map(async (location) => {
      const isFile = location.kind === 'file';
      const blob = isFile ? await openLocalBlob(location.path) : await openRemote(location);
      closers.push(() => blob.close());
      return blob;
    });
    // One that fails must not end the others half-way: what they open is closed with the rest.
    await Promise.allSettled(opening);
    const blobs = await Promise.all(opening);
    const upper = await openConfiguredUpper(config);
    const stack =
      blobs.length === 0 && upper !== null
        ? emptyStack(upper.virtualSizeBytes)
        : await openIndexedStack(blobs);
    const bytes = stack.layers.map((layer) => layer.container.bytes);
    const entries: LsmtEntryColumns[] = stack.layers.map((layer) => layer.lsmt);
    if (upper === null) {
      const source = exportSource(bytes, stack.map.index, stack.map.virtualSizeBytes);
      return { config, stack, upper, source, entries, bytes, close };
    }
    const file = await openFileBytes(upper.name);
    closers.push(() => file.close());
    bytes.push(file);
    entries.push(upper);
    const virtualSizeBytes = upper.virtualSizeBytes || stack.map.virtualSizeBytes;
    const source = exportSource(bytes, mergeLayers(entries, virtualSizeBytes), virtualSizeBytes);
    return { config, stack, upper, source, entries, bytes, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A configuration is JSON text; no layer begins with a brace. */
async function configOf(paths: readonly string[]): Promise<ImageConfig | null> {
  if (paths.length !== 1) return null;
  const [path] = paths;
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (error) {
    throw new ReplaybdError('ERR_INPUT_READ', `${path}: cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(PROBE_BYTES), 0, PROBE_BYTES, 0);
    const isConfig = buffer.toString('latin1', 0, bytesRead).trimStart().startsWith('{');
    return isConfig ? await readImageConfig(path) : null;
  } finally {
    await file.close();
  }
}

function locateLowers(config: ImageConfig): Promise<LowerLocation[]> {
  const lowers = config.accelerationLayer ? config.lowers.slice(0, -1) : config.lowers;
  return Promise.all(lowers.map((lower) => resolveLower(config, lower)));
}

async function openConfiguredUpper(config: ImageConfig | null): Promise<LsmtUpper | null> {
  if (config === null || config.upper.data === '' || config.upper.index === '') return null;
  return openUpper(config.upper.data, config.upper.index);
}

async function refuseRemote(location: LowerLocation & { kind: 'remote' }): Promise<Blob> {
  throw new ReplaybdError(
    'ERR_INPUT_REMOTE',
    `${location.digest}: expected a local layer, found one that is only in its registry. ` +
      'Attach the image instead, or download its layers.',
  );
}
