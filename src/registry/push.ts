import { createReadStream } from 'node:fs';
import { Readable } from 'node:stream';
import { registryLimits } from '../base/limits.ts';
import type { Access } from './auth.ts';
import { CollectingSink } from './collect.ts';
import { assertDigest } from './digest.ts';
import { isRetryable, publicUrl, RegistryError } from './errors.ts';
import { contentLength, header } from './headers.ts';
import type { Repository } from './reference.ts';
import type { Session, SessionRequest } from './session.ts';
import { statusError } from './status-error.ts';
import type { ResponseHead } from './transport.ts';

/** A blob to push. Its bytes are read again when an upload has to start over. */
export interface BlobContent {
  digest: string;
  sizeBytes: number;
  content: { bytes: Uint8Array } | { path: string };
}

export interface PushOptions {
  /** A repository of the same registry that may already hold the blob. */
  mountFrom?: string;
  /** Upload in pieces of this size; one request when absent. */
  chunkBytes?: number;
  signal?: AbortSignal;
}

export type PushOutcome = 'present' | 'mounted' | 'uploaded';

const ATTEMPTS_MAX = 3;
const BACKOFF_MS = 250;

/**
 * Makes a repository hold a blob: nothing when it does, a mount when another one does, an upload
 * otherwise (distribution specification, "Pushing blobs"). A failed upload starts over.
 */
export async function pushBlob(
  session: Session,
  repository: Repository,
  blob: BlobContent,
  options: PushOptions = {},
): Promise<PushOutcome> {
  assertDigest(blob.digest, repository.name);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await new Upload(session, repository, blob, options).run();
    } catch (error) {
      if (attempt === ATTEMPTS_MAX || !isRetryable(error)) throw error;
      const askedMs = error instanceof RegistryError ? error.retryAfterMs : 0;
      await session.clock.sleep(Math.max(askedMs, BACKOFF_MS * 2 ** attempt), options.signal);
    }
  }
}

/** The size of a blob; null when the repository does not hold it. */
export async function headBlob(
  session: Session,
  access: Access,
  digest: string,
  signal?: AbortSignal,
): Promise<number | null> {
  const { repository } = access;
  const url = new URL(`${repository.origin}/v2/${repository.name}/blobs/${digest}`);
  const sink = new CollectingSink(url, registryLimits.answerBytesMax);
  const method = 'HEAD' as const;
  const request = { url, method, access, ...(signal === undefined ? {} : { signal }) };
  const head = await session.exchange(request, sink);
  if (head.status === 404) return null;
  if (head.status !== 200) throw statusError(url, head, sink.bytes(), session.clock.wallMs());
  const size = contentLength(head.headers);
  if (size !== null) return size;
  throw new RegistryError(
    'ERR_BODY_LENGTH',
    `${publicUrl(url)}: expected a Content-Length, found none.`,
  );
}

/** One attempt to push one blob. */
class Upload {
  readonly #session: Session;
  readonly #repository: Repository;
  readonly #blob: BlobContent;
  readonly #options: PushOptions;
  readonly #access: Access;

  constructor(session: Session, repository: Repository, blob: BlobContent, options: PushOptions) {
    this.#session = session;
    this.#repository = repository;
    this.#blob = blob;
    this.#options = options;
    const { mountFrom } = options;
    this.#access = {
      repository,
      actions: 'pull,push',
      ...(mountFrom === undefined ? {} : { mountFrom }),
    };
  }

  async run(): Promise<PushOutcome> {
    const { digest } = this.#blob;
    const size = await headBlob(this.#session, this.#access, digest, this.#options.signal);
    if (size !== null) return 'present';
    const { mountFrom, chunkBytes } = this.#options;
    const start = new URL(`${this.#repository.origin}/v2/${this.#repository.name}/blobs/uploads/`);
    if (mountFrom !== undefined) {
      start.searchParams.set('mount', digest);
      start.searchParams.set('from', mountFrom);
    }
    const head = await this.#send('POST', start, { 'content-length': '0' });
    if (head.status === 201 && mountFrom !== undefined) return 'mounted';
    this.#expect(start, head, 202);
    let location = this.#location(start, head);
    const isChunked = chunkBytes !== undefined && this.#blob.sizeBytes > chunkBytes;
    if (isChunked) location = await this.#patchAll(location, chunkBytes);
    const end = new URL(location);
    end.searchParams.set('digest', digest);
    const bodyRange = isChunked ? null : { start: 0, end: this.#blob.sizeBytes };
    this.#expect(end, await this.#sendBody('PUT', end, bodyRange, {}), 201);
    return 'uploaded';
  }

  async #patchAll(first: URL, chunkBytes: number): Promise<URL> {
    let location = first;
    for (let start = 0; start < this.#blob.sizeBytes; start += chunkBytes) {
      const end = Math.min(start + chunkBytes, this.#blob.sizeBytes);
      const headers = { 'content-range': `${start}-${end - 1}` };
      const head = await this.#sendBody('PATCH', location, { start, end }, headers);
      this.#expect(location, head, 202);
      location = this.#location(location, head);
    }
    return location;
  }

  #sendBody(
    method: 'PUT' | 'PATCH',
    url: URL,
    range: { start: number; end: number } | null,
    headers: Record<string, string>,
  ): Promise<ResponseHead> {
    const length = range === null ? 0 : range.end - range.start;
    const all = {
      ...headers,
      'content-type': 'application/octet-stream',
      'content-length': String(length),
    };
    return this.#send(method, url, all, length === 0 ? undefined : () => this.#read(range));
  }

  #read(range: { start: number; end: number } | null): Uint8Array | Readable {
    const { start, end } = range ?? { start: 0, end: 0 };
    const { content } = this.#blob;
    if ('bytes' in content) return content.bytes.subarray(start, end);
    return createReadStream(content.path, { start, end: end - 1, highWaterMark: 256 * 1024 });
  }

  async #send(
    method: 'POST' | 'PUT' | 'PATCH',
    url: URL,
    headers: Record<string, string>,
    body?: () => Uint8Array | Readable,
  ): Promise<ResponseHead> {
    const { signal } = this.#options;
    const request: SessionRequest = {
      url,
      method,
      access: this.#access,
      headers,
      ...(body === undefined ? {} : { body }),
      ...(signal === undefined ? {} : { signal }),
    };
    const sink = new CollectingSink(url, registryLimits.answerBytesMax);
    const head =
      url.origin === this.#repository.origin
        ? await this.#session.exchange(request, sink)
        : await this.#session.exchangeWithTarget(request, sink);
    if (head.status < 400) return head;
    throw statusError(url, head, sink.bytes(), this.#session.clock.wallMs());
  }

  #location(url: URL, head: ResponseHead): URL {
    const location = URL.parse(header(head.headers, 'location') ?? '', url.href);
    if (location !== null && this.#session.mayFollow(url, location)) return location;
    throw new RegistryError(
      'ERR_REGISTRY_REDIRECT',
      `${publicUrl(url)}: expected the upload's Location, found none that may be followed.`,
    );
  }

  #expect(url: URL, head: ResponseHead, status: number): void {
    if (head.status === status) return;
    throw new RegistryError(
      'ERR_REGISTRY_STATUS',
      `${publicUrl(url)}: expected status ${status}, found ${head.status}.`,
      { status: head.status },
    );
  }
}
