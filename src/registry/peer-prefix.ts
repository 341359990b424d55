import type { Clock } from '../base/clock.ts';
import { ReplaybdError } from '../base/errors.ts';

/** How long an unreachable peer is left alone. */
const SET_ASIDE_MS = 30_000;

/**
 * overlaybd's p2pConfig: an accelerator on or near this host that serves
 * `<address>/<URL of the blob>`. While it cannot be reached, blobs come from where they are.
 */
export class PeerPrefix {
  readonly #address: string;
  readonly #clock: Clock;
  #usableAtMs = 0;

  /** `address` as in overlaybd.json, with or without `http://`. Throws ERR_REGISTRY_OPTIONS. */
  constructor(address: string, clock: Clock) {
    const withScheme = /^https?:\/\//.test(address) ? address : `http://${address}`;
    if (URL.parse(withScheme) === null) {
      const message = 'p2p address: expected http://host:port/prefix, found something else.';
      throw new ReplaybdError('ERR_REGISTRY_OPTIONS', message, { errno: 'EINVAL' });
    }
    this.#address = withScheme.replace(/\/+$/, '');
    this.#clock = clock;
  }

  get origin(): string {
    return new URL(this.#address).origin;
  }

  get isUsable(): boolean {
    return this.#clock.nowMs() >= this.#usableAtMs;
  }

  /** Where the peer serves what `url` names. */
  wrap(url: URL): URL {
    return new URL(`${this.#address}/${url.href}`);
  }

  /** The peer did not answer: do without it for a while. */
  setAside(): void {
    this.#usableAtMs = this.#clock.nowMs() + SET_ASIDE_MS;
  }
}
