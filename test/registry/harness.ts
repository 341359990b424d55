import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Lane, RangeSource } from '../../src/blob/blob.ts';
import { createRegistryClient, type RegistryClientOptions } from '../../src/registry/client.ts';
import { fixedCredentials } from '../../src/registry/credentials.ts';
import type { Fault } from '../../src/registry/embedded/faults.ts';
import {
  startEmbeddedRegistry,
  type EmbeddedRegistry,
  type EmbeddedRegistryOptions,
} from '../../src/registry/embedded/server.ts';

/** Recognisable wherever they leak. */
export const USER = 'reader';
export const PASSWORD = 'hunter2-very-secret';
export const REPOSITORY = 'apps/web';

export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'replaybd-registry-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** An embedded registry holding one blob of random bytes, and a client of it. */
export async function setUp(
  t: TestContext,
  serverOptions: Partial<EmbeddedRegistryOptions> = {},
  clientOptions: RegistryClientOptions = {},
  blobBytes = 300_000,
) {
  const registry = await startEmbeddedRegistry({ root: temporaryFolder(t), ...serverOptions });
  const client = createRegistryClient({
    credentials: fixedCredentials(null, USER, PASSWORD),
    ...clientOptions,
  });
  t.after(async () => {
    await client.close();
    await registry.close();
  });
  const blob = randomBytes(blobBytes);
  const digest = registry.store.putBlob(REPOSITORY, blob);
  const name = `${registry.url}/${REPOSITORY}`;
  return { registry, client, blob, digest, name };
}

/** Reads one range whole. */
export async function readRange(
  source: RangeSource,
  offset: number,
  length: number,
  lane: Lane = 'demand',
  signal = new AbortController().signal,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  const onData = (chunk: Uint8Array): void => void chunks.push(Buffer.from(chunk));
  await source.fetch(offset, length, { lane, signal, onData });
  return Buffer.concat(chunks);
}

/** What the server saw, one word a request, e.g. `blob 401`. */
export function seen(registry: EmbeddedRegistry): string[] {
  return registry.log.map(({ kind, status, isTarget }) => {
    return `${isTarget ? 'target' : kind} ${status}`;
  });
}

/** A fault for requests of blob bytes only, at most `times`. */
export function blobFault(fault: Fault, times = Infinity) {
  let count = 0;
  return ({ kind, method }: { kind: string; method: string }): Fault | undefined => {
    if (kind !== 'blob' || method !== 'GET' || count === times) return undefined;
    count += 1;
    return fault;
  };
}
