import { createHash } from 'node:crypto';
import { createReadStream, cpSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../src/base/package-root.ts';
import { cliJson, cliOutput } from './cli.ts';
import type { Scratch } from './scratch.ts';

/** An overlaybd image, in a registry and on disk. */
export interface TestImage {
  /** In the registry. */
  reference: string;
  /** A config.v1.json whose lowers are files. */
  config: string;
  /** The merged disk as `replaybd export` writes it. */
  raw: string;
  /** Of the merged disk. */
  sha256: string;
  virtualSizeBytes: number;
  layers: { digest: string; sizeBytes: number }[];
}

interface BuildOutput {
  virtualSizeBytes: number;
  layers: { digest: string; sizeBytes: number }[];
}

/** Real files that every checkout has, about 10 MiB in two directories: a layer each. */
export function makeRootfs(scratch: Scratch): string[] {
  const layers = [['undici', 'msgpackr', 'pino'], ['eslint']];
  return layers.map((packages, layer) => {
    const folder = scratch.path(`rootfs${layer}`);
    mkdirSync(folder);
    for (const name of packages) {
      const target = join(folder, 'modules', name);
      cpSync(join(packageRoot, 'node_modules', name), target, { recursive: true });
    }
    return folder;
  });
}

/** Builds an image with the command line tool, pushes it, and exports its disk. */
export async function makeTestImage(
  scratch: Scratch,
  registryUrl: string,
  rootfs: readonly string[] = makeRootfs(scratch),
  virtualSizeMiB = 64,
): Promise<TestImage> {
  const reference = `${registryUrl}/e2e/image:v1`;
  const layout = scratch.path('layout');
  const built = await cliJson<BuildOutput>(scratch, [
    ...['image', 'build', '--push', reference, '--layout', layout],
    ...['--virtual-size', String(virtualSizeMiB / 1024)],
    ...rootfs.flatMap((folder) => ['--rootfs', folder]),
  ]);
  const config = scratch.path('config.v1.json');
  const raw = scratch.path('disk.raw');
  await cliOutput(scratch, ['image', 'config', `oci:${layout}`, '--output', config]);
  await cliOutput(scratch, ['export', config, raw]);
  const { layers, virtualSizeBytes } = built;
  return { reference, config, raw, sha256: await sha256OfFile(raw), virtualSizeBytes, layers };
}

/** In hex; reads to the end of the file or device. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    hash.update(chunk as Buffer);
  }
  return hash.digest('hex');
}
