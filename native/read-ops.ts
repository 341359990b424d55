import { ZERO_LAYER } from '../src/image/stack-map.ts';

/** Ops of one run; a read with more of them is answered in several runs. */
export const OPS_MAX = 1024;

/** What a run gives: everything; something is not local; a block is not what its file says. */
export const readResult = { ok: 0, missing: 1, bad: 2 } as const;
export type ReadResult = (typeof readResult)[keyof typeof readResult];

/** Why a run stopped, in the kernel's numbering. */
export const failureReasons = ['missing', 'range', 'table', 'checksum', 'decode'] as const;

/**
 * `missing`: granules are absent. `range`: the op leaves its layer or the destination. `table`: the
 * jump table leads nowhere. `checksum`: the block's CRC. `decode`: not the codec's format, or not
 * of the length expected.
 */
export type FailureReason = (typeof failureReasons)[number];

/** What stopped the last run that did not return 0. */
export interface ReadFailure {
  kind: 'missing' | 'bad';
  reason: FailureReason;
  /** Position of the op since `clear()`. */
  op: number;
  layer: number;
  /** Number of the ZFile block; 0 for a raw layer, or when the whole op is missing. */
  block: number;
  /**
   * The blob bytes concerned: to fetch, or to drop and fetch again. Empty for 'range' and 'table'.
   */
  blobOffset: number;
  blobLength: number;
}

const OP_BYTES = 24;
const DOUBLES_PER_OP = OP_BYTES / 8;
const WORDS_PER_OP = OP_BYTES / 4;

/**
 * The pieces of one read: where each comes from and where it goes. A fixed table that native code
 * reads in place (`struct op` of kernels.c), so that filling it allocates nothing.
 */
export class OpTable {
  readonly bytes: Uint8Array = new Uint8Array(OPS_MAX * OP_BYTES);
  /** At most OPS_MAX; a run with more is a programming error. */
  count = 0;
  readonly #doubles = new Float64Array(this.bytes.buffer);
  readonly #words = new Uint32Array(this.bytes.buffer);

  clear(): void {
    this.count = 0;
  }

  /**
   * Bytes [offset, offset + length) of a layer's LSMT file (zeros for ZERO_LAYER) go to byte
   * `targetOffset` of the destination. Lengths are at least 1 and, like targets, below 2^32.
   */
  push(layer: number, offset: number, length: number, targetOffset: number): void {
    const word = this.count * WORDS_PER_OP;
    this.#doubles[this.count * DOUBLES_PER_OP] = offset;
    this.#words[word + 2] = layer;
    this.#words[word + 3] = length;
    this.#words[word + 4] = targetOffset;
    this.count += 1;
  }

  offset(op: number): number {
    return this.#doubles[op * DOUBLES_PER_OP];
  }

  layer(op: number): number {
    return this.#words[op * WORDS_PER_OP + 2];
  }

  length(op: number): number {
    return this.#words[op * WORDS_PER_OP + 3];
  }

  targetOffset(op: number): number {
    return this.#words[op * WORDS_PER_OP + 4];
  }

  isZero(op: number): boolean {
    return this.layer(op) === ZERO_LAYER;
  }
}

/** Answers reads of local layer bytes; one per thread that reads. */
export interface ReadKernel {
  readonly kind: 'native' | 'portable';
  readonly ops: OpTable;
  /** Carries out `ops`. When it does not return 0, `dst` holds anything and `failure` says why. */
  run(dst: Uint8Array): ReadResult;
  /** Meaningful after a run that did not return 0, until the next. */
  readonly failure: ReadFailure;
}
