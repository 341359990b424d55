import { messageOf } from '../../base/errors.ts';
import { GRANULE_BYTES, fetchLimits } from '../../base/limits.ts';
import { rangeEnd, type ByteRange } from '../../base/range.ts';
import type { RangeSource } from '../blob.ts';
import type { Flow } from './fair-share.ts';
import type { Flight } from './flight-table.ts';
import type { RemoteBlob } from './remote-blob.ts';
import { isFinal } from './retry.ts';
import type { FlightRequest, SendOptions } from './run-request.ts';

/** A range of a blob, and where its bytes stand in a packed source. */
export interface PackedPiece {
  readonly blob: RemoteBlob;
  /** Whole granules, or up to the blob's end. */
  readonly range: ByteRange;
  readonly at: number;
}

/** A request of a packed source, told when it ended. */
export interface PackedRequestEnd {
  /** What it brought of what was needed, and bytes between that. */
  readonly bytes: number;
  readonly gapBytes: number;
  /** What it did not bring. */
  readonly missing: readonly PackedPiece[];
  readonly error: unknown;
}

export interface PackedOptions {
  readonly source: RangeSource;
  readonly digest: string;
  /** In the order of the source, which is the order they are needed in; asked for lazily. */
  readonly pieces: Iterator<PackedPiece>;
  readonly flow: Flow;
  readonly signal: AbortSignal;
  readonly onRequest: (end: PackedRequestEnd) => void;
}

/** Gaps are part of what a request may bring: at most this share. */
const GAP_SHARE = 1 / 4;

/**
 * Fetches of a source that holds many blobs' ranges, one behind the other, in the order of need. Each
 * request is one range of it, for what is absent of the pieces in there:
 *
 *   source     | a: 0..2 | b: 0..1 | a: 7..9 | c: 3..4 | b: 5..8 | ...
 *   present                |.......|
 *   requests   |<-- flight -->|gap |<-- flights -->|
 *
 * Pieces become flights only when their request leaves, so a read that needs one before fetches it
 * from its own blob, and the stream passes it by.
 */
export class PackedStream {
  readonly flow: Flow;
  /**
   * Resolves when it is over and nothing is under way any more, or when it was aborted: with the reason
   * when it was given up, else with null.
   */
  readonly finished: Promise<string | null>;
  readonly #options: PackedOptions;
  readonly #settle: (reason: string | null) => void;
  #rest: PackedPiece | null = null;
  #active = 0;
  #failures = 0;
  #isOver = false;
  /** Why it was given up. */
  #reason: string | null = null;

  constructor(options: PackedOptions) {
    this.#options = options;
    this.flow = options.flow;
    const { promise, resolve } = Promise.withResolvers<string | null>();
    this.finished = promise;
    this.#settle = resolve;
    const onAbort = (): void => {
      this.#isOver = true;
      this.#settle(this.#reason);
    };
    options.signal.addEventListener('abort', onAbort, { once: true });
  }

  /** It asks for no more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Asks for no more; what is under way goes on. */
  giveUp(reason: string): void {
    this.#reason ??= reason;
    this.#end();
  }

  /** The next request, of about so many bytes; its flights are in their tables. Null: none is left. */
  next(bytesMax: number, order: number): PackedRequest | null {
    const request = new PackedRequest(this.#options, order);
    while (!this.#isOver) {
      const piece = this.#rest ?? this.#pull();
      if (piece === null) break;
      const absent = absentPart(piece);
      if (absent === null) {
        this.#rest = null;
        continue;
      }
      const taken = request.take(absent, bytesMax);
      this.#rest = behind(piece, absent.range.offset + taken);
      if (taken === 0) break;
    }
    if (request.flights.length === 0) {
      this.#end();
      return null;
    }
    this.#active += 1;
    return request;
  }

  /** A request is over. One that failed for good, or a few that failed, end the stream. */
  onEnd(request: PackedRequest, error: unknown): void {
    this.#active -= 1;
    if (error !== null) {
      this.#failures += 1;
      const isHopeless = isFinal(error) || this.#failures >= fetchLimits.packedFailuresMax;
      if (isHopeless) this.giveUp(messageOf(error));
    }
    const missing = request.missing();
    const bytes = request.neededBytes - bytesIn(missing);
    this.#options.onRequest({ bytes, gapBytes: request.gapBytes, missing, error });
    this.#settleIfOver();
  }

  #pull(): PackedPiece | null {
    const { value, done } = this.#options.pieces.next();
    return done === true ? null : value;
  }

  #end(): void {
    this.#isOver = true;
    this.#settleIfOver();
  }

  #settleIfOver(): void {
    if (this.#isOver && this.#active === 0) this.#settle(this.#reason);
  }
}

/** One range of a packed source, and the flights that it brings. */
export class PackedRequest implements FlightRequest {
  readonly flights: Flight<RemoteBlob>[] = [];
  readonly name: string;
  readonly digest: string;
  gapBytes = 0;
  readonly #source: RangeSource;
  readonly #order: number;
  /** What each flight brings. */
  readonly #pieces: PackedPiece[] = [];
  #end = 0;

  constructor({ source, digest }: PackedOptions, order: number) {
    this.name = source.name;
    this.digest = digest;
    this.#source = source;
    this.#order = order;
  }

  get ranges(): readonly ByteRange[] {
    const offset = this.#pieces[0].at;
    return [{ offset, length: this.#end - offset }];
  }

  /**
   * Takes the beginning of a piece that is absent; gives how many bytes, 0 when it belongs into another
   * request.
   */
  take(piece: PackedPiece, bytesMax: number): number {
    const isFirst = this.#pieces.length === 0;
    const start = isFirst ? piece.at : this.#pieces[0].at;
    const gap = isFirst ? 0 : piece.at - this.#end;
    const gapsMax = GAP_SHARE * (this.#end - start);
    const isDear = gap > fetchLimits.packedGapBytesMax || this.gapBytes + gap > gapsMax;
    if (gap > 0 && isDear) return 0;
    const room = Math.floor((bytesMax - (piece.at - start)) / GRANULE_BYTES) * GRANULE_BYTES;
    const length = Math.min(piece.range.length, room);
    if (length <= 0) return 0;
    const { blob } = piece;
    const { offset } = piece.range;
    const flight: Flight<RemoteBlob> = {
      owner: blob,
      lane: 'prefetch',
      isPacked: true,
      start: offset,
      end: offset + length,
      state: 'queued',
      order: this.#order,
      signal: null,
      abort: null,
    };
    blob.flights.add(flight);
    this.flights.push(flight);
    this.#pieces.push({ blob, range: { offset, length }, at: piece.at });
    this.gapBytes += gap;
    this.#end = piece.at + length;
    return length;
  }

  /** One contiguous answer, handed to the flights by place; what lies between them is dropped. */
  send({ lane, signal, onData }: SendOptions): Promise<void> {
    const [{ offset, length }] = this.ranges;
    let position = offset;
    let index = 0;
    const split = (chunk: Uint8Array): void => {
      for (let rest = chunk; rest.length > 0 && index < this.#pieces.length;) {
        const { at, range } = this.#pieces[index];
        const isGap = position < at;
        const end = isGap ? at : at + range.length;
        const part = rest.subarray(0, end - position);
        if (!isGap) onData(part, index);
        position += part.length;
        rest = rest.subarray(part.length);
        if (position === at + range.length) index += 1;
      }
    };
    return this.#source.fetch(offset, length, { lane, signal, onData: split });
  }

  get neededBytes(): number {
    return bytesIn(this.#pieces);
  }

  /** What is still absent of it. */
  missing(): PackedPiece[] {
    return this.#pieces.filter(({ blob, range }) => !blob.has(range.offset, range.length));
  }
}

function bytesIn(pieces: readonly PackedPiece[]): number {
  return pieces.reduce((sum, { range }) => sum + range.length, 0);
}

/** From the first byte of a piece that is neither present nor under way, what follows of that kind. */
function absentPart(piece: PackedPiece): PackedPiece | null {
  const { blob, range } = piece;
  if (blob.isClosed || blob.refusesPacked) return null;
  for (const missing of blob.cached.missing(range.offset, range.length)) {
    const absent = blob.flights.pieces(missing).find(({ flight }) => flight === null);
    if (absent === undefined) continue;
    const { start, end } = absent;
    const at = piece.at + (start - range.offset);
    return { blob, range: { offset: start, length: end - start }, at };
  }
  return null;
}

/** What of a piece lies behind a byte of its blob; null when nothing does. */
function behind(piece: PackedPiece, offset: number): PackedPiece | null {
  const length = rangeEnd(piece.range) - offset;
  if (length <= 0) return null;
  const at = piece.at + (offset - piece.range.offset);
  return { ...piece, range: { offset, length }, at };
}
