import { systemClock, type Clock } from '../base/clock.ts';
import { ReplaybdError } from '../base/errors.ts';
import { registryLimits } from '../base/limits.ts';
import type { Lane, RangeSource } from '../blob/blob.ts';
import { Authorizer } from './auth.ts';
import { BlobRoute, SelfServing } from './blob-route.ts';
import { RegistryBlobSource } from './blob-source.ts';
import { CollectingSink } from './collect.ts';
import { anonymous, type CredentialProvider } from './credentials.ts';
import { assertDigest } from './digest.ts';
import {
  hostPlatform,
  type Descriptor,
  type ImageIndex,
  type ImageManifest,
  type Platform,
} from './manifest.ts';
import {
  fetchImageManifest,
  fetchManifest,
  fetchSmallBlob,
  type FetchedIndex,
  type FetchedManifest,
} from './manifests.ts';
import { RangeSupport } from './many-ranges.ts';
import { PeerPrefix } from './peer-prefix.ts';
import {
  headBlob,
  pushBlob,
  type BlobContent,
  type PushOptions,
  type PushOutcome,
} from './push.ts';
import {
  parseReference,
  parseRepositoryAddress,
  type ImageReference,
  type Repository,
  type RepositoryAddress,
} from './reference.ts';
import { deleteReferrer, listReferrers, pushManifest, pushReferrer } from './referrers.ts';
import { Remembered } from './remembered.ts';
import { Session } from './session.ts';
import { statusError } from './status-error.ts';
import { listTags } from './tags.ts';
import { TokenService } from './token.ts';
import { Transport, type TransportOptions } from './transport.ts';

export interface RegistryClientOptions extends TransportOptions {
  credentials?: CredentialProvider;
  /** `host[:port]` of registries without TLS. A reference that starts with http:// also asks. */
  plainHttpHosts?: readonly string[];
  /** overlaybd's p2pConfig.address: blobs are asked of `<address>/<blob URL>`. */
  peerAddress?: string;
  userAgent?: string;
  clock?: Clock;
}

/** What names a repository: an image reference, overlaybd's repoBlobUrl, or either one parsed. */
export type RepositoryName = string | RepositoryAddress;

/**
 * An OCI distribution client. Every method rejects with a RegistryError (see `isRetryable`) or, for
 * unusable names, with ERR_REFERENCE or ERR_DIGEST.
 */
export interface RegistryClient {
  /** Resolves when the registry answers and the credentials may read the repository. */
  ping(name: RepositoryName, signal?: AbortSignal): Promise<void>;
  /**
   * Begins to open `count` connections to the repository's registry for a lane. Sends nothing:
   * whoever knows that requests will follow saves them a round trip.
   */
  preconnect(name: RepositoryName, lane: Lane, count: number): void;
  /** An image's manifest; of an index, the one for `platform` (default: this host's). */
  getManifest(
    reference: string | ImageReference,
    options?: { platform?: Platform; signal?: AbortSignal },
  ): Promise<FetchedManifest>;
  /** A manifest or an index as it is. */
  getObject(
    reference: string | ImageReference,
    options?: { signal?: AbortSignal },
  ): Promise<FetchedIndex>;
  /** Ranges of a blob. Sources of one blob share what was learned about reaching it. */
  blobSource(name: RepositoryName, digest: string, sizeBytes: number | null): RangeSource;
  /** A small blob, verified; ERR_BODY_LENGTH beyond `limitBytes` (default 16 MiB). */
  getBlob(
    name: RepositoryName,
    digest: string,
    limitBytes?: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array>;
  /** A blob's size in bytes; null when the repository does not hold it. */
  headBlob(name: RepositoryName, digest: string): Promise<number | null>;
  pushBlob(name: RepositoryName, blob: BlobContent, options?: PushOptions): Promise<PushOutcome>;
  pushManifest(
    name: RepositoryName,
    bytes: Uint8Array,
    mediaType: string,
    tag?: string,
  ): Promise<{ digest: string; subjectAccepted: boolean }>;
  listReferrers(
    name: RepositoryName,
    digest: string,
    artifactType?: string,
    signal?: AbortSignal,
  ): Promise<Descriptor[]>;
  /** The repository's tags, as far as `registryLimits` allow; none where the registry lists none. */
  listTags(name: RepositoryName, signal?: AbortSignal): Promise<string[]>;
  /**
   * Removes a manifest that refers to another, and says so where that is listed by a tag. Throws
   * ERR_REGISTRY_DELETE where the registry does not allow it.
   */
  deleteReferrer(name: RepositoryName, subject: string, digest: string): Promise<void>;
  pushReferrer(
    name: RepositoryName,
    manifest: (ImageManifest | ImageIndex) & { subject: Descriptor },
  ): Promise<Descriptor>;
  /** Where the repository's blobs are asked for: its registry, or a peer in between. */
  blobOrigin(name: RepositoryName): string;
  /** The repository as it is reached: scheme decided. */
  repository(name: RepositoryName): Repository;
  /** Ends every connection; requests under way reject, and so does every later one. */
  close(): Promise<void>;
}

/** A client; `close` it to end the process's connections. */
export function createRegistryClient(options: RegistryClientOptions = {}): RegistryClient {
  return new Client(options);
}

class Client implements RegistryClient {
  readonly #plainHttpHosts: ReadonlySet<string>;
  readonly #clock: Clock;
  readonly #transport: Transport;
  readonly #session: Session;
  readonly #shared: { selfServing: SelfServing; peers: PeerPrefix | null };
  readonly #support = new RangeSupport();
  readonly #routes = new Remembered<BlobRoute>(registryLimits.rememberedMax);

  constructor(options: RegistryClientOptions) {
    this.#plainHttpHosts = new Set(options.plainHttpHosts ?? []);
    this.#clock = options.clock ?? systemClock;
    this.#transport = new Transport(options);
    const userAgent = options.userAgent ?? 'replaybd';
    const allowsPlainHttp = (host: string) => this.#plainHttpHosts.has(host);
    const authorizer = new Authorizer({
      credentials: options.credentials ?? anonymous,
      tokens: new TokenService(this.#transport, this.#clock, userAgent),
      allowsPlainHttp,
    });
    const { transport, clock } = { transport: this.#transport, clock: this.#clock };
    this.#session = new Session({ transport, authorizer, clock, userAgent, allowsPlainHttp });
    const peers =
      options.peerAddress === undefined ? null : new PeerPrefix(options.peerAddress, clock);
    this.#shared = { selfServing: new SelfServing(), peers };
  }

  async ping(name: RepositoryName, signal?: AbortSignal): Promise<void> {
    const repository = this.repository(name);
    const url = new URL(`${repository.origin}/v2/`);
    const sink = new CollectingSink(url, registryLimits.answerBytesMax);
    const access = { repository, actions: 'pull' as const };
    const method = 'GET' as const;
    const request = { url, method, access, ...(signal === undefined ? {} : { signal }) };
    const head = await this.#session.exchange(request, sink);
    if (head.status !== 200) throw statusError(url, head, sink.bytes(), this.#clock.wallMs());
  }

  preconnect(name: RepositoryName, lane: Lane, count: number): void {
    // With a peer in between, the registry may never be asked.
    if (this.#shared.peers !== null) return;
    this.#transport.preconnect(new URL(this.repository(name).origin), lane, count);
  }

  async getManifest(
    reference: string | ImageReference,
    options: { platform?: Platform; signal?: AbortSignal } = {},
  ): Promise<FetchedManifest> {
    const parsed = typeof reference === 'string' ? parseReference(reference) : reference;
    return fetchImageManifest(
      this.#session,
      this.repository(parsed),
      parsed.digest ?? parsed.tag ?? 'latest',
      options.platform ?? hostPlatform(),
      options.signal,
    );
  }

  async getObject(
    reference: string | ImageReference,
    options: { signal?: AbortSignal } = {},
  ): Promise<FetchedIndex> {
    const parsed = typeof reference === 'string' ? parseReference(reference) : reference;
    const item = parsed.digest ?? parsed.tag ?? 'latest';
    return fetchManifest(this.#session, this.repository(parsed), item, options.signal);
  }

  blobSource(name: RepositoryName, digest: string, sizeBytes: number | null): RangeSource {
    const repository = this.repository(name);
    assertDigest(digest, repository.name);
    const key = `${repository.origin}/${repository.name}@${digest}`;
    const create = () => new BlobRoute(this.#session, repository, digest, this.#shared);
    const route = this.#routes.getOrCreate(key, create);
    const shared = { clock: this.#clock, support: this.#support };
    return new RegistryBlobSource(route, digest, sizeBytes, shared);
  }

  getBlob(
    name: RepositoryName,
    digest: string,
    limitBytes?: number,
    signal?: AbortSignal,
  ): Promise<Uint8Array> {
    const limit = limitBytes ?? registryLimits.smallBlobBytesMax;
    return fetchSmallBlob(this.#session, this.repository(name), digest, limit, signal);
  }

  async headBlob(name: RepositoryName, digest: string): Promise<number | null> {
    const repository = this.repository(name);
    assertDigest(digest, repository.name);
    return headBlob(this.#session, { repository, actions: 'pull' }, digest);
  }

  pushBlob(name: RepositoryName, blob: BlobContent, options?: PushOptions): Promise<PushOutcome> {
    return pushBlob(this.#session, this.repository(name), blob, options);
  }

  pushManifest(name: RepositoryName, bytes: Uint8Array, mediaType: string, tag?: string) {
    return pushManifest(this.#session, this.repository(name), bytes, mediaType, tag ?? null);
  }

  async listReferrers(
    name: RepositoryName,
    digest: string,
    artifactType?: string,
    signal?: AbortSignal,
  ) {
    return listReferrers(this.#session, this.repository(name), digest, artifactType, signal);
  }

  async listTags(name: RepositoryName, signal?: AbortSignal) {
    return listTags(this.#session, this.repository(name), signal);
  }

  async deleteReferrer(name: RepositoryName, subject: string, digest: string) {
    await deleteReferrer(this.#session, this.repository(name), subject, digest);
  }

  pushReferrer(
    name: RepositoryName,
    manifest: (ImageManifest | ImageIndex) & { subject: Descriptor },
  ) {
    return pushReferrer(this.#session, this.repository(name), manifest);
  }

  blobOrigin(name: RepositoryName): string {
    return this.#shared.peers?.origin ?? this.repository(name).origin;
  }

  repository(name: RepositoryName): Repository {
    const address = typeof name === 'string' ? parseRepositoryAddress(name) : name;
    const { host } = address;
    const scheme = address.scheme ?? (this.#plainHttpHosts.has(host) ? 'http' : 'https');
    const origin = URL.parse(`${scheme}://${host}`)?.origin;
    if (origin === undefined) {
      const message = `image reference: expected a host name, found ${JSON.stringify(host)}.`;
      throw new ReplaybdError('ERR_REFERENCE', message, { errno: 'EINVAL' });
    }
    return { origin, host, name: address.repository };
  }

  close(): Promise<void> {
    return this.#transport.close();
  }
}
