import { registryLimits } from '../base/limits.ts';
import type { Lane } from '../blob/blob.ts';
import { codeOf } from '../base/errors.ts';
import type { PeerPrefix } from './peer-prefix.ts';
import { ProbeGate } from './probe-gate.ts';
import type { Repository } from './reference.ts';
import { Remembered } from './remembered.ts';
import { withHeadTap, type Session } from './session.ts';
import type { BodySink, ResponseHead } from './transport.ts';

export interface RouteRequest {
  headers: Record<string, string>;
  lane: Lane;
  signal: AbortSignal;
}

/** Statuses by which a signed URL says that it has expired, or a target that it lost the blob. */
const STALE_TARGET = new Set([400, 401, 403, 404, 410]);

/** Repositories that answered for a blob themselves, so their blobs need no probe. */
export class SelfServing {
  readonly #repositories = new Remembered<true>(registryLimits.rememberedMax);
  readonly #found = new Remembered<PromiseWithResolvers<void>>(registryLimits.rememberedMax);

  has(repository: Repository): boolean {
    return this.#repositories.get(keyOf(repository)) === true;
  }

  /** Resolves when another blob of the repository shows that it serves itself. */
  found(repository: Repository): Promise<void> {
    return this.#found.getOrCreate(keyOf(repository), () => Promise.withResolvers()).promise;
  }

  note(repository: Repository, servedItself: boolean): void {
    const key = keyOf(repository);
    if (!servedItself) {
      this.#repositories.delete(key);
      return;
    }
    this.#repositories.set(key, true);
    this.#found.get(key)?.resolve();
    this.#found.delete(key);
  }
}

/**
 * How the bytes of one blob are reached: at the registry, or where it redirects to. A redirect is
 * followed once and its target remembered until the target refuses.
 *
 *   unknown --(redirect)--> target --(400, 401, 403, 404, 410)--> unknown
 *      '----(answers)-----> registry
 */
export class BlobRoute {
  readonly url: URL;
  readonly #session: Session;
  readonly #repository: Repository;
  readonly #selfServing: SelfServing;
  readonly #peers: PeerPrefix | null;
  readonly #gate: ProbeGate;
  #target: URL | null = null;

  constructor(
    session: Session,
    repository: Repository,
    digest: string,
    shared: { selfServing: SelfServing; peers: PeerPrefix | null },
  ) {
    this.url = new URL(`${repository.origin}/v2/${repository.name}/blobs/${digest}`);
    this.#session = session;
    this.#repository = repository;
    this.#selfServing = shared.selfServing;
    this.#peers = shared.peers;
    this.#gate = new ProbeGate(session.clock);
  }

  /** Who answers for the blob's bytes, as far as is known. */
  get servingOrigin(): string {
    const target = this.#target ?? this.url;
    return this.#peers?.isUsable === true ? this.#peers.wrap(target).origin : target.origin;
  }

  /** GETs the blob; the sink sees every head on the way, the answer's is returned. */
  async exchange(request: RouteRequest, sink: BodySink): Promise<ResponseHead> {
    const target = this.#target ?? (await this.#resolveFirst(request, sink));
    if (!(target instanceof URL)) return target;
    const response = await this.#send(target, request, sink);
    if (!isStale(response)) return response;
    if (target === this.url) return this.#sendToRegistry(request, sink);
    // Of all requests that find the target stale, the first forgets it and one asks again.
    if (this.#target === target) {
      this.#target = null;
      this.#gate.forget();
    }
    const again = this.#target ?? (await this.#resolveFirst(request, sink));
    return again instanceof URL ? this.#send(again, request, sink) : again;
  }

  /** Waits for a probe under way, here or of another blob, and uses what it found, or is the probe. */
  async #resolveFirst(request: RouteRequest, sink: BodySink): Promise<URL | ResponseHead> {
    const withoutProbe = () =>
      this.#peers?.isUsable === true ? this.url : this.#sendToRegistry(request, sink);
    if (this.#selfServing.has(this.#repository)) return withoutProbe();
    const entering = this.#gate.enter(request.signal);
    const leave = await Promise.race([entering, this.#selfServing.found(this.#repository)]);
    if (leave === undefined) {
      // The probe of another blob has told: nobody needs to wait for this one's.
      entering.then(
        (leaveUnused) => leaveUnused(true),
        () => undefined,
      );
      return withoutProbe();
    }
    try {
      if (this.#target !== null) return this.#target;
      const tapped = withHeadTap(sink, (head) => {
        if (isAnswer(head)) leave(true);
      });
      return await this.#sendToRegistry(request, tapped);
    } finally {
      leave(false);
    }
  }

  #sendToRegistry(request: RouteRequest, sink: BodySink): Promise<ResponseHead> {
    const tapped = withHeadTap(sink, (head) => {
      if (isAnswer(head)) this.#note(head.url);
    });
    return this.#session.exchange(this.#build(this.url, request), tapped);
  }

  /** An answer came from `url`: the registry itself, or a target worth remembering. */
  #note(url: URL): void {
    const isSelf = url.href === this.url.href;
    this.#selfServing.note(this.#repository, isSelf);
    this.#target = isSelf ? null : url;
  }

  async #send(target: URL, request: RouteRequest, sink: BodySink): Promise<ResponseHead> {
    const direct = () =>
      target.origin === this.#repository.origin
        ? this.#session.exchange(this.#build(target, request), sink)
        : this.#session.exchangeWithTarget(this.#build(target, request), sink);
    if (this.#peers?.isUsable !== true) return direct();
    let hasAnswered = false;
    const tapped = withHeadTap(sink, () => (hasAnswered = true));
    try {
      const wrapped = await this.#buildForPeer(this.#peers.wrap(target), target, request);
      return await this.#session.exchangeWithTarget(wrapped, tapped);
    } catch (error) {
      if (hasAnswered || codeOf(error) !== 'ERR_REGISTRY_NETWORK') throw error;
      this.#peers.setAside();
      return direct();
    }
  }

  /** A peer fetches on our behalf, so for what the registry serves itself it needs our token. */
  async #buildForPeer(peerUrl: URL, target: URL, request: RouteRequest) {
    const built = this.#build(peerUrl, request);
    if (target.origin !== this.#repository.origin) return built;
    const authorization = await this.#session.authorization(built.access);
    if (authorization === null) return built;
    return { ...built, headers: { ...built.headers, authorization } };
  }

  #build(url: URL, request: RouteRequest) {
    return {
      url,
      method: 'GET' as const,
      access: { repository: this.#repository, actions: 'pull' as const },
      ...request,
    };
  }
}

function keyOf(repository: Repository): string {
  return `${repository.origin}/${repository.name}`;
}

function isStale(head: ResponseHead): boolean {
  return STALE_TARGET.has(head.status) || (head.status >= 300 && head.status < 400);
}

function isAnswer(head: ResponseHead): boolean {
  return head.status === 200 || head.status === 206;
}
