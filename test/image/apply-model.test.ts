// Goal: whatever two layers hold, and in whatever order, the image is what OCI says it is.
// Method: random trees, random layers over them with whiteouts and opaque folders anywhere; a model in
// memory removes what the layer hides from the tree and lays the layer over the rest. The kernel's
// driver reads the image, e2fsck checks it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { apply, emptyImage } from './apply-support.ts';
import { describeTree, mounted, needsRoot, temporaryFolder } from './ext4-tree.ts';
import { tarOf, type TestEntry } from './tar-builder.ts';

const TIME = 1_700_000_000n * 10n ** 9n;

/** A file of the model; all its names hold the same one. */
interface Node {
  type: 'file' | 'directory' | 'symlink';
  mode: number;
  uid: number;
  mtimeNs: bigint;
  /** Or a link's target. */
  content: string;
  attribute: string;
}

/** By path, `a/b`. Parents are there. */
type Tree = Map<string, Node>;

const implied = (): Node => {
  return { type: 'directory', mode: 0o755, uid: 0, mtimeNs: 0n, content: '', attribute: '' };
};

/** What the generator draws: an operation on a path. */
interface Operation {
  kind: 'file' | 'directory' | 'symlink' | 'link' | 'whiteout' | 'opaque';
  path: string[];
  target: string[];
  mode: number;
  uid: number;
  content: string;
  attribute: string;
}

const path = fc.array(fc.constantFrom('a', 'b', 'c'), { minLength: 1, maxLength: 3 });
const operation: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom('file', 'file', 'directory', 'symlink', 'link', 'whiteout', 'opaque'),
  path,
  target: path,
  mode: fc.constantFrom(0o644, 0o755, 0o4711, 0o1777),
  uid: fc.constantFrom(0, 1000, 70_000),
  content: fc.constantFrom('', 'x', 'y'.repeat(5000), '\0'.repeat(70_000) + 'z'),
  attribute: fc.constantFrom('', '', 'v', 'w'.repeat(500)),
});
const layer = fc.array(operation, { maxLength: 14 });

const parentsOf = (names: readonly string[]) =>
  names.slice(0, -1).map((_, index) => names.slice(0, index + 1).join('/'));
const isBelow = (name: string, top: string) => name.startsWith(`${top}/`);

/** A layer as it is put together from operations: those that make no sense are left out. */
class Model {
  readonly entries: TestEntry[] = [];
  readonly #lower: Tree;
  readonly #own: Tree = new Map();
  /** Directories that an entry of the layer describes. */
  readonly #described = new Set<string>();
  /** Lower paths that are hidden, with all below them. */
  readonly #hidden = new Set<string>();

  constructor(lower: Tree, operations: readonly Operation[]) {
    this.#lower = lower;
    // What the layer hides does not depend on where its whiteouts come, except for hard links to it.
    const marks = operations.filter(({ kind }) => kind === 'whiteout' || kind === 'opaque');
    for (const { kind, path: names } of marks) this.#mark(kind, names);
    const puts = operations.filter((one) => !marks.includes(one));
    for (const [index, operation] of operations.entries()) {
      if (puts.includes(operation)) this.#put(operation);
      else this.entries.push(markEntry(operation, index));
    }
  }

  /** The tree with the layer on it. */
  result(): Tree {
    const result: Tree = new Map();
    for (const [name, node] of this.#lower) {
      if (!this.#isHidden(name)) result.set(name, node);
    }
    for (const [name, node] of this.#own) {
      const isLowerDirectory = result.get(name)?.type === 'directory';
      if (isLowerDirectory && node.type === 'directory' && !this.#described.has(name)) continue;
      result.set(name, node);
    }
    return result;
  }

  #mark(kind: string, names: string[]): void {
    const top = names.join('/');
    if (kind === 'whiteout') this.#hidden.add(top);
    else if (this.#lower.get(top)?.type === 'directory') {
      for (const name of this.#lower.keys()) if (isBelow(name, top)) this.#hidden.add(name);
    }
  }

  #isHidden(name: string): boolean {
    return [...parentsOf(name.split('/')), name].some((one) => this.#hidden.has(one));
  }

  #put(operation: Operation): void {
    const { kind, path: names, target } = operation;
    const name = names.join('/');
    const parents = parentsOf(names);
    if (!parents.every((parent) => this.#isUsableFolder(parent))) return;
    const node = kind === 'link' ? this.#linkTarget(target.join('/'), name) : nodeOf(operation);
    if (node === null) return;
    for (const parent of parents) {
      if (!this.#own.has(parent)) this.#own.set(parent, implied());
    }
    const isMerged = node.type === 'directory' && this.#own.get(name)?.type === 'directory';
    if (!isMerged) {
      for (const inner of [...this.#own.keys()]) if (isBelow(inner, name)) this.#remove(inner);
    }
    const lower = this.#lower.get(name);
    if (node.type !== 'directory' || lower?.type !== 'directory') this.#hidden.add(name);
    this.#own.set(name, node);
    if (node.type === 'directory') this.#described.add(name);
    else this.#described.delete(name);
    this.entries.push(entryOf(operation, name, target.join('/')));
  }

  #remove(name: string): void {
    this.#own.delete(name);
    this.#described.delete(name);
  }

  /** Not through links or files: other tests have these. */
  #isUsableFolder(name: string): boolean {
    const own = this.#own.get(name);
    if (own !== undefined) return own.type === 'directory';
    const lower = this.#lower.get(name);
    return lower === undefined || lower.type === 'directory';
  }

  #linkTarget(target: string, name: string): Node | null {
    const lower = this.#isHidden(target) ? undefined : this.#lower.get(target);
    const folders = parentsOf(target.split('/'));
    if (!folders.every((folder) => this.#isUsableFolder(folder))) return null;
    const node = this.#own.get(target) ?? lower;
    // A name that goes with what the link replaces would be gone.
    if (node === undefined || node.type === 'directory' || isBelow(target, name)) return null;
    return node;
  }
}

function nodeOf({ kind, mode, uid, content, attribute }: Operation): Node {
  const common = { uid, mtimeNs: TIME, attribute };
  if (kind === 'directory') return { ...common, type: 'directory', mode, content: '' };
  if (kind !== 'symlink') return { ...common, type: 'file', mode, content };
  // Links have no attributes of users.
  return { ...common, type: 'symlink', mode: 0o777, content: targetOf(content), attribute: '' };
}

/** Short ones are in the inode, others have a block. */
const targetOf = (content: string) => (content.length < 2 ? 't' : 'long/'.repeat(20));

function entryOf(operation: Operation, path: string, target: string): TestEntry {
  const { kind, mode, uid, content, attribute } = operation;
  const xattr: [string, string][] = [['SCHILY.xattr.user.test', attribute]];
  const pax = attribute === '' || kind === 'symlink' ? {} : { pax: xattr };
  if (kind === 'directory') return { path, flag: '5', mode, uid, ...pax };
  if (kind === 'link') return { path, flag: '1', linkTarget: target };
  if (kind === 'symlink') return { path, flag: '2', uid, linkTarget: targetOf(content) };
  return { path, mode, uid, content, ...pax };
}

function markEntry({ kind, path: names }: Operation, index: number): TestEntry {
  const folder = names.slice(0, -1).map((name) => `${name}/`);
  if (kind === 'opaque') return { path: `${names.join('/')}/.wh..wh..opq` };
  return { path: `${index % 2 === 0 ? './' : ''}${folder.join('')}.wh.${names.at(-1) ?? ''}` };
}

/** As describeTree has it. */
function describeModel(tree: Tree): string[] {
  const lines = [...tree].sort(([a], [b]) => comparePaths(a, b));
  const firstNames = new Map<Node, string>();
  return lines.map(([name, node]) => {
    const names = lines.filter(([, other]) => other === node).length;
    const inner = lines.filter(
      ([other, { type }]) =>
        type === 'directory' && isBelow(other, name) && !other.slice(name.length + 1).includes('/'),
    );
    const isDirectory = node.type === 'directory';
    const first = firstNames.get(node) ?? `/${name}`;
    firstNames.set(node, first);
    const size = isDirectory ? '' : node.content.length;
    const links = isDirectory ? 2 + inner.length : names;
    const { type, mode, uid, mtimeNs, attribute } = node;
    const content = isDirectory ? '' : digestOf(node.content);
    return [
      ...[`/${name}`, type, mode.toString(8), uid, mtimeNs, links, size, first, attribute, content],
    ].join(' ');
  });
}

/** Depth first, as a walk of the tree meets them. */
function comparePaths(a: string, b: string): number {
  return a.replaceAll('/', '\0') < b.replaceAll('/', '\0') ? -1 : 1;
}

const TYPES: Record<string, string> = { '8': 'file', '4': 'directory', '10': 'symlink' };

function describeMount(mount: string): string[] {
  return describeTree(mount)
    .slice(1)
    .map((line) => {
      const [
        name,
        modeText = '',
        uid,
        ,
        mtimeNs,
        links,
        size,
        ,
        first,
        hash = '',
        xattrs = '',
        to = '',
      ] = line.split(' ');
      const mode = Number.parseInt(modeText, 8);
      const value = Buffer.from(xattrs.replace(/^user\.test=/, ''), 'hex').toString();
      const type = TYPES[String(mode >> 12)];
      const content = type === 'symlink' ? digestOf(Buffer.from(to, 'hex').toString()) : hash;
      const bits = (mode & 0o7777).toString(8);
      return [name, type, bits, uid, mtimeNs, links, size, first, value, content].join(' ');
    });
}

const digestOf = (text: string) => createHash('sha256').update(text).digest('hex');

test('random layers over random trees', { skip: needsRoot }, async (context) => {
  const folder = temporaryFolder(context);
  await fc.assert(
    fc.asyncProperty(layer, layer, layer, async (...layers) => {
      const image = await emptyImage(folder, 16 * 1024 * 1024);
      let tree: Tree = new Map();
      for (const operations of layers) {
        const model = new Model(tree, operations);
        await apply(image, tarOf(model.entries), 3000);
        tree = model.result();
      }
      assert.deepEqual(
        mounted(image, (mount) => describeMount(mount)),
        describeModel(tree),
      );
      rmSync(image);
    }),
    { numRuns: 25 },
  );
});
