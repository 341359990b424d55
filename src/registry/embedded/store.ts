import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { closeSync, fsyncSync, openSync, renameSync, rmSync, statSync, writeSync } from 'node:fs';
import { appendFile, copyFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { digestHex, digestOf, isDigest } from '../digest.ts';
import type { Descriptor } from '../manifest.ts';
import { isRepositoryName } from '../reference.ts';

export interface StoredManifest {
  digest: string;
  mediaType: string;
  bytes: Uint8Array;
}

/**
 * A registry's directory. Every file is written beside its place, synced and renamed into it, so a
 * crash leaves old or new, and a restart finds everything again. Component names of repositories
 * never start with `_`, so the folders that do are ours.
 *
 *   blobs/sha256/<hex>                         content
 *   uploads/<uuid>                             uploads under way
 *   repositories/<name>/_blobs/<hex>           the repository may serve the blob
 *   repositories/<name>/_manifests/<hex>       media type of a manifest
 *   repositories/<name>/_tags/<tag>            digest
 *   repositories/<name>/_referrers/<hex>/<hex> descriptor, by subject
 */
export class DirectoryStore {
  readonly #root: string;

  constructor(root: string) {
    this.#root = root;
    for (const folder of ['blobs/sha256', 'uploads', 'repositories']) {
      mkdirSync(join(root, folder), { recursive: true });
    }
  }

  /** The blob's file and size; null when the repository does not hold it. */
  blob(repository: string, digest: string): { path: string; sizeBytes: number } | null {
    if (!existsSync(this.#link(repository, '_blobs', digest))) return null;
    return this.anyBlob(digest);
  }

  /** A blob of whatever repository, as the redirect target serves it. */
  anyBlob(digest: string): { path: string; sizeBytes: number } | null {
    const path = this.#content(digest);
    const facts = statSync(path, { throwIfNoEntry: false });
    return facts === undefined ? null : { path, sizeBytes: facts.size };
  }

  /** Makes a blob of one repository part of another; false when it is not there. */
  mount(repository: string, from: string, digest: string): boolean {
    if (!isRepositoryName(from) || this.blob(from, digest) === null) return false;
    this.#write(this.#link(repository, '_blobs', digest), new Uint8Array());
    return true;
  }

  /** Puts a blob in place without an upload. */
  putBlob(repository: string, bytes: Uint8Array): string {
    const digest = digestOf(bytes);
    if (this.anyBlob(digest) === null) this.#write(this.#content(digest), bytes);
    this.#write(this.#link(repository, '_blobs', digest), new Uint8Array());
    return digest;
  }

  /** Puts a file in place as a blob; the file is copied. */
  async importBlob(repository: string, path: string): Promise<string> {
    const id = this.beginUpload();
    await copyFile(path, this.#upload(id));
    const digest = await fileDigest(this.#upload(id));
    this.#place(repository, id, digest);
    return digest;
  }

  beginUpload(): string {
    const id = randomUUID();
    this.#write(this.#upload(id), new Uint8Array());
    return id;
  }

  /** Bytes received so far; null for an unknown upload. */
  uploadSize(id: string): number | null {
    if (!/^[0-9a-f-]{36}$/.test(id)) return null;
    return statSync(this.#upload(id), { throwIfNoEntry: false })?.size ?? null;
  }

  async appendUpload(id: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    await appendFile(this.#upload(id), chunks);
  }

  /** Ends an upload; false, and the upload is gone, when its bytes have another digest. */
  async finishUpload(repository: string, id: string, digest: string): Promise<boolean> {
    if ((await fileDigest(this.#upload(id))) !== digest) {
      rmSync(this.#upload(id));
      return false;
    }
    this.#place(repository, id, digest);
    return true;
  }

  putManifest(repository: string, manifest: StoredManifest, tag: string | null): void {
    this.#write(this.#content(manifest.digest), manifest.bytes);
    const path = this.#link(repository, '_manifests', manifest.digest);
    this.#write(path, Buffer.from(manifest.mediaType));
    if (tag !== null) this.#write(this.#tag(repository, tag), Buffer.from(manifest.digest));
  }

  manifest(repository: string, tagOrDigest: string): StoredManifest | null {
    const digest = isDigest(tagOrDigest)
      ? tagOrDigest
      : readText(this.#tag(repository, tagOrDigest));
    if (digest === null || !isDigest(digest)) return null;
    const mediaType = readText(this.#link(repository, '_manifests', digest));
    if (mediaType === null) return null;
    return { digest, mediaType, bytes: readFileSync(this.#content(digest)) };
  }

  /** Forgets a manifest, and that it refers to `subject`; its content stays, as other blobs' does. */
  removeManifest(repository: string, digest: string, subject: string | null): void {
    rmSync(this.#link(repository, '_manifests', digest), { force: true });
    if (subject === null) return;
    const folder = this.#link(repository, '_referrers', subject);
    rmSync(join(folder, digestHex(digest)), { force: true });
  }

  tags(repository: string): string[] {
    return list(this.#repository(repository, '_tags'));
  }

  addReferrer(repository: string, subject: string, descriptor: Descriptor): void {
    const folder = this.#link(repository, '_referrers', subject);
    const path = join(folder, digestHex(descriptor.digest));
    this.#write(path, Buffer.from(JSON.stringify(descriptor)));
  }

  referrers(repository: string, subject: string): Descriptor[] {
    const folder = this.#link(repository, '_referrers', subject);
    return list(folder).map((name) => {
      return JSON.parse(readFileSync(join(folder, name), 'utf8')) as Descriptor;
    });
  }

  #place(repository: string, id: string, digest: string): void {
    const upload = this.#upload(id);
    syncPath(upload);
    renameSync(upload, this.#content(digest));
    syncPath(dirname(this.#content(digest)));
    this.#write(this.#link(repository, '_blobs', digest), new Uint8Array());
  }

  #write(path: string, bytes: Uint8Array): void {
    mkdirSync(dirname(path), { recursive: true });
    const temporary = join(this.#root, 'uploads', `.${randomUUID()}`);
    const fd = openSync(temporary, 'wx');
    for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
    fsyncSync(fd);
    closeSync(fd);
    renameSync(temporary, path);
    syncPath(dirname(path));
  }

  #content(digest: string): string {
    return join(this.#root, 'blobs/sha256', digestHex(digest));
  }

  #upload(id: string): string {
    return join(this.#root, 'uploads', id);
  }

  #tag(repository: string, tag: string): string {
    return join(this.#repository(repository, '_tags'), tag);
  }

  #link(repository: string, folder: string, digest: string): string {
    return join(this.#repository(repository, folder), digestHex(digest));
  }

  #repository(repository: string, folder: string): string {
    return join(this.#root, 'repositories', repository, folder);
  }
}

async function fileDigest(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return `sha256:${hash.digest('hex')}`;
}

function readText(path: string): string | null {
  return existsSync(path) ? readFileSync(path, 'utf8') : null;
}

function list(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder).sort() : [];
}

function syncPath(path: string): void {
  const fd = openSync(path, 'r');
  fsyncSync(fd);
  closeSync(fd);
}
