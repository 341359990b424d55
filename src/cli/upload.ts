import type { Command } from 'commander';
import type { Uploaded } from '../image/tools/upload.ts';
import { addRegistryOptions, withRegistry, type RegistryFlags } from './registry-options.ts';
import { interruptible } from './terminal.ts';

/** `--upload`, and the flags of how registries are reached. */
export function addUploadOption(command: Command): Command {
  return addRegistryOptions(
    command.option(
      '--upload <repository>',
      'push the result as a blob: an image reference, or https://host/v2/NAME/blobs/uploads',
    ),
  );
}

/** Pushes the file when that was asked for; null when not. */
export async function uploadIfAsked(
  path: string,
  flags: RegistryFlags & { upload?: string },
): Promise<Uploaded | null> {
  const { upload } = flags;
  if (upload === undefined) return null;
  const { uploadFile } = await import('../image/tools/upload.ts');
  return await interruptible((signal) =>
    withRegistry(flags, (client) => uploadFile(client, path, upload, signal), signal),
  );
}
