import { stat } from 'node:fs/promises';
import { sha256OfFile } from '../../base/file-digest.ts';
import type { RegistryClient } from '../../registry/client.ts';
import type { PushOutcome } from '../../registry/push.ts';
import { parseRepositoryAddress } from '../../registry/reference.ts';

export interface Uploaded {
  digest: string;
  outcome: PushOutcome;
}

/**
 * Pushes a file as a blob. `target` names the repository: an image reference, or a URL as the
 * original's tools take it, `https://host/v2/<repository>/blobs/uploads`. Errors: ERR_REFERENCE and
 * those of the registry client.
 */
export async function uploadFile(
  client: Pick<RegistryClient, 'pushBlob'>,
  path: string,
  target: string,
  signal: AbortSignal,
): Promise<Uploaded> {
  const address = parseRepositoryAddress(target.replace(/\/blobs\/uploads\/?$/, '/blobs'));
  const digest = `sha256:${await sha256OfFile(path, signal)}`;
  const { size } = await stat(path);
  const blob = { digest, sizeBytes: size, content: { path } };
  return { digest, outcome: await client.pushBlob(address, blob, { signal }) };
}
