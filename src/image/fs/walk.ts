import { fsReadLimits } from '../../base/limits.ts';
import type { FileSystem, FsNode } from './file-system.ts';

/** A node, and one of its paths (bytes, without the leading slash). */
export interface FoundNode {
  readonly path: Buffer;
  readonly node: FsNode;
}

/** Leaves out parts of a tree, so that they are not read. */
export interface WalkFilter {
  /** Whether an entry's node is read, and found. */
  isFound(id: number): Promise<boolean>;
  /** Whether a directory's entries are read. */
  isEntered(directory: FsNode): Promise<boolean>;
}

const WHOLE_TREE: WalkFilter = { isFound: async () => true, isEntered: async () => true };

const SLASH = '/'.charCodeAt(0);
const DOT = '.'.charCodeAt(0);

/**
 * The node at a path from the root, as a process of the image would find it: symbolic links are
 * followed inside the image, and `..` of the root is the root. Null when there is none, or when links
 * go in circles. Errors: those of the nodes.
 */
export async function findNode(fs: FileSystem, path: Uint8Array): Promise<FsNode | null> {
  const root = await fs.node(fs.rootId);
  let rest = splitPath(path);
  let links = 0;
  const above: FsNode[] = [];
  let node = root;
  for (let parts = 0; rest.length > 0; parts += 1) {
    if (parts >= fsReadLimits.pathPartsMax || rest.length > fsReadLimits.pathPartsMax) return null;
    const [name, ...further] = rest;
    rest = further;
    if (name.length === 1 && name[0] === DOT) continue;
    if (name.length === 2 && name[0] === DOT && name[1] === DOT) {
      node = above.pop() ?? root;
      continue;
    }
    if (node.kind !== 'directory') return null;
    const child = await childOf(fs, node, name);
    if (child === null) return null;
    if (child.kind !== 'symlink') {
      above.push(node);
      node = child;
      continue;
    }
    links += 1;
    if (links > fsReadLimits.symlinksMax) return null;
    const target = await child.readLink();
    if (target[0] === SLASH) {
      node = root;
      above.length = 0;
    }
    rest = [...splitPath(target), ...rest];
  }
  return node;
}

/** Everything below a directory, depth first, links not followed; each directory once. */
export async function* walkTree(
  fs: FileSystem,
  directory: FsNode,
  filter = WHOLE_TREE,
): AsyncGenerator<FoundNode, void, undefined> {
  const { treeNodesMax, treeDepthMax, treePathBytesMax } = fsReadLimits;
  const visited = new Set<number>([directory.id]);
  const root: Buffer = Buffer.alloc(0);
  const open = [{ path: root, entries: directory.entries() }];
  for (let nodes = 0; nodes < treeNodesMax;) {
    const deepest = open.at(-1);
    if (deepest === undefined) return;
    const next = await deepest.entries.next();
    if (next.done === true) {
      open.pop();
      continue;
    }
    nodes += 1;
    const { name, id } = next.value;
    const path = joinPath(deepest.path, name);
    if (!(await filter.isFound(id))) continue;
    const node = await fs.node(id);
    yield { path, node };
    // A damaged directory may hold itself.
    const isEntered =
      node.kind === 'directory' &&
      !visited.has(id) &&
      open.length < treeDepthMax &&
      path.length <= treePathBytesMax;
    if (!isEntered || !(await filter.isEntered(node))) continue;
    visited.add(id);
    open.push({ path, entries: node.entries() });
  }
}

/** Every regular file of a file system by path; one with several names occurs with each. */
export async function* files(fs: FileSystem): AsyncGenerator<FoundNode, void, undefined> {
  for await (const found of walkTree(fs, await fs.node(fs.rootId))) {
    if (found.node.kind === 'file') yield found;
  }
}

async function childOf(fs: FileSystem, node: FsNode, name: Uint8Array): Promise<FsNode | null> {
  for await (const entry of node.entries()) {
    if (entry.name.equals(name)) return fs.node(entry.id);
  }
  return null;
}

/** A path's parts; several slashes count as one. */
function splitPath(path: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (let at = 0; at < path.length;) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) parts.push(path.subarray(at, end));
    at = end + 1;
  }
  return parts;
}

function joinPath(folder: Buffer, name: Buffer): Buffer {
  return folder.length === 0 ? Buffer.from(name) : Buffer.concat([folder, Buffer.of(SLASH), name]);
}
