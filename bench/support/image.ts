import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { readdir, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { packageRoot } from '../../src/base/package-root.ts';
import { buildLayers } from '../../src/image/build/layers.ts';
import { DirectoryStore } from '../../src/registry/embedded/store.ts';

export const REPOSITORY = 'bench/play';

export interface BenchImage {
  /** Of an embedded registry that holds the layers. */
  registryRoot: string;
  /** The bottom first. */
  layers: { digest: string; path: string; sizeBytes: number }[];
}

const MIB = 2 ** 20;

/** What the layers hold: this machine's files, the first ones by name. */
const CONTENT: readonly { folders: readonly string[]; bytesMax: number }[] = [
  { folders: ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu'], bytesMax: 80 * MIB },
  { folders: ['/usr/bin', '/usr/sbin'], bytesMax: 60 * MIB },
  { folders: [join(packageRoot, 'node_modules')], bytesMax: 50 * MIB },
  { folders: ['/usr/share', '/usr/lib/python3'], bytesMax: 40 * MIB },
];
const FILE_BYTES_MAX = 32 * MIB;

/** A four-layer image of real files in a registry's folder, made once for each `work` folder. */
export async function benchImage(work: string): Promise<BenchImage> {
  const description = join(work, 'image.json');
  if (existsSync(description)) return JSON.parse(await readFile(description, 'utf8')) as BenchImage;
  const registryRoot = join(work, 'registry');
  const layersFolder = join(work, 'layers');
  await mkdir(layersFolder, { recursive: true });
  const rootfs: string[] = [];
  for (const [i, { folders, bytesMax }] of CONTENT.entries()) {
    const target = join(work, `rootfs-${i}`);
    await mkdir(target, { recursive: true });
    let left = bytesMax;
    for (const folder of folders) left -= await copyFiles(folder, target, left);
    rootfs.push(target);
  }
  const built = await buildLayers({ rootfs, workFolder: layersFolder });
  const store = new DirectoryStore(registryRoot);
  for (const { path } of built.layers) await store.importBlob(REPOSITORY, path);
  const layers = built.layers.map(({ digest, path, sizeBytes }) => ({ digest, path, sizeBytes }));
  const image = { registryRoot, layers };
  await Promise.all(rootfs.map((folder) => rm(folder, { recursive: true })));
  await writeFile(description, JSON.stringify(image));
  return image;
}

/** overlaybd's configuration of the image, at a registry. */
export async function writeConfig(image: BenchImage, url: string, path: string): Promise<void> {
  const lowers = image.layers.map(({ digest, sizeBytes }) => ({ digest, size: sizeBytes }));
  const repoBlobUrl = `${url}/v2/${REPOSITORY}/blobs`;
  await writeFile(path, JSON.stringify({ repoBlobUrl, lowers, resultFile: '' }));
}

async function copyFiles(source: string, target: string, bytesMax: number): Promise<number> {
  if (!existsSync(source)) return 0;
  let copied = 0;
  const entries = await readdir(source, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((e) => join(e.parentPath, e.name));
  for (const path of paths.sort()) {
    const { size } = await stat(path);
    if (size > FILE_BYTES_MAX || copied + size > bytesMax) continue;
    const copy = join(target, relative(dirname(source), path));
    await mkdir(dirname(copy), { recursive: true });
    await copyFile(path, copy);
    copied += size;
  }
  return copied;
}
