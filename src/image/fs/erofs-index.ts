import { readMetadata } from './content.ts';
import type { Disk } from './disk.ts';
import { damagedFs, unsupportedFs } from './file-system.ts';

/** What a logical cluster is: the begin of a physical one (stored plain or compressed), or not. */
export const CLUSTER = { plain: 0, head: 1, nonhead: 2, head2: 3 } as const;

/** A compressed file's logical clusters as columns. */
export interface ClusterIndex {
  readonly type: Uint8Array;
  /** Of a begin: where in the cluster it is. */
  readonly low: Uint32Array;
  /** Of a begin: its first block. */
  readonly block: Float64Array;
  /** Of what follows the begin of a big physical cluster: how many blocks that has; or else 0. */
  readonly compressedBlocks: Uint16Array;
  /** Byte of the disk where the index ends. */
  readonly endOffset: number;
}

/** Where an index is. */
export interface IndexPlace {
  readonly disk: Disk;
  readonly structure: string;
  /** Behind the map header. */
  readonly offset: number;
  readonly count: number;
  /** A logical cluster has two to this power bytes. */
  readonly clusterShift: number;
}

const FULL_ENTRY_BYTES = 8;
const FULL_PADDING_BYTES = 8;
/** In what follows a begin: the number is a count of blocks instead of a distance. */
const IS_COUNT = 1 << 11;
/** Entries of 4 bytes come in packs of 2, those of 2 bytes in packs of 16; a pack ends with a block. */
const PACKS = {
  long: { entries: 2, entryBytes: 4, entryBits: 16, clusterShiftMax: 14 },
  short: { entries: 16, entryBytes: 2, entryBits: 14, clusterShiftMax: 12 },
} as const;
const PACK_BLOCK_BYTES = 4;
const LOW_BITS_MIN = 12;
/** Short packs begin at multiples of their size. */
const SHORT_PACK_BYTES = 32;

/** An index of 8 bytes an entry (z_erofs_load_full_lcluster). */
export async function readFullIndex(place: IndexPlace): Promise<ClusterIndex> {
  const { disk, structure, count } = place;
  const offset = place.offset + FULL_PADDING_BYTES;
  const bytes = await readMetadata(disk, offset, count * FULL_ENTRY_BYTES, structure);
  const index = allocate(count, offset + bytes.length);
  for (let i = 0; i < count; i += 1) {
    const at = i * FULL_ENTRY_BYTES;
    const type = bytes.readUInt16LE(at) & 3;
    index.type[i] = type;
    if (type === CLUSTER.nonhead) {
      const delta = bytes.readUInt16LE(at + 4);
      if ((delta & IS_COUNT) !== 0) index.compressedBlocks[i] = delta & ~IS_COUNT;
      continue;
    }
    index.low[i] = bytes.readUInt16LE(at + 2);
    index.block[i] = bytes.readUInt32LE(at + 4);
  }
  return index;
}

/** An index of 4 and, in the middle, 2 bytes an entry (z_erofs_load_compact_lcluster). */
export async function readCompactIndex(
  place: IndexPlace,
  options: { hasShortEntries: boolean; isBig: boolean },
): Promise<ClusterIndex> {
  const { disk, structure, offset, count, clusterShift } = place;
  // Long entries up to where short packs may begin, short ones as far as packs are full, long ones.
  const toAlignment = ((SHORT_PACK_BYTES - (offset % SHORT_PACK_BYTES)) / 4) % 8;
  const hasShort = options.hasShortEntries && toAlignment < count;
  const short = hasShort ? Math.floor((count - toAlignment) / 16) * 16 : 0;
  const longFirst = short === 0 ? count : toAlignment;
  const parts = [
    { pack: PACKS.long, count: longFirst },
    { pack: PACKS.short, count: short },
    { pack: PACKS.long, count: count - longFirst - short },
  ];
  const index = allocate(count, 0);
  let [at, first] = [offset, 0];
  for (const { pack, count: entries } of parts) {
    if (entries === 0) continue;
    if (clusterShift > pack.clusterShiftMax) {
      throw unsupportedFs(disk, structure, `compact clusters of 2^${clusterShift} bytes`);
    }
    const packBytes = pack.entries * pack.entryBytes;
    const packs = Math.ceil(entries / pack.entries);
    const bytes = await readMetadata(disk, at, packs * packBytes, structure);
    for (let i = 0; i < packs; i += 1) {
      const one = bytes.subarray(i * packBytes, (i + 1) * packBytes);
      const taken = Math.min(pack.entries, entries - i * pack.entries);
      const reader = new PackReader(one, pack, Math.max(clusterShift, LOW_BITS_MIN), place);
      reader.into(index, first + i * pack.entries, taken, options.isBig);
    }
    at += packs * packBytes;
    first += entries;
  }
  return { ...index, endOffset: at };
}

function allocate(count: number, endOffset: number): ClusterIndex {
  return {
    type: new Uint8Array(count),
    low: new Uint32Array(count),
    block: new Float64Array(count),
    compressedBlocks: new Uint16Array(count),
    endOffset,
  };
}

/** Entries, a few bits each, and the block that the first begin of the pack follows. */
class PackReader {
  readonly #bytes: Buffer;
  readonly #entryBits: number;
  readonly #lowBits: number;
  readonly #place: IndexPlace;

  constructor(bytes: Buffer, pack: { entryBits: number }, lowBits: number, place: IndexPlace) {
    this.#bytes = bytes;
    this.#entryBits = pack.entryBits;
    this.#lowBits = lowBits;
    this.#place = place;
  }

  into(index: ClusterIndex, first: number, count: number, isBig: boolean): void {
    const base = this.#bytes.readUInt32LE(this.#bytes.length - PACK_BLOCK_BYTES);
    for (let i = 0; i < count; i += 1) {
      const { type, low } = this.#entry(i);
      index.type[first + i] = type;
      if (type === CLUSTER.nonhead) {
        const isCount = isBig && (low & IS_COUNT) !== 0;
        if (isCount) index.compressedBlocks[first + i] = low & ~IS_COUNT;
        continue;
      }
      index.low[first + i] = low;
      index.block[first + i] = base + (isBig ? this.#blocksBeforeBig(i) : this.#blocksBefore(i));
    }
  }

  #entry(i: number): { type: number; low: number } {
    const bit = i * this.#entryBits;
    const value = this.#bytes.readUInt32LE(bit >> 3) >>> (bit & 7);
    return { type: (value >>> this.#lowBits) & 3, low: value & ((1 << this.#lowBits) - 1) };
  }

  /** Blocks from the pack's to that of entry `i`, when every physical cluster has one. */
  #blocksBefore(i: number): number {
    let blocks = 1;
    for (let at = i; at > 0;) {
      at -= 1;
      const { type, low } = this.#entry(at);
      // The distance to its begin, which may be in another pack.
      if (type === CLUSTER.nonhead) at -= low;
      if (at >= 0) blocks += 1;
    }
    return blocks;
  }

  /** The same when what follows a begin tells how many blocks it has. */
  #blocksBeforeBig(i: number): number {
    const { disk, structure } = this.#place;
    let blocks = 0;
    for (let at = i; at > 0;) {
      at -= 1;
      const { type, low } = this.#entry(at);
      if (type !== CLUSTER.nonhead) {
        blocks += 1;
      } else if ((low & IS_COUNT) !== 0) {
        at -= 1;
        blocks += low & ~IS_COUNT;
      } else {
        if (low <= 1) throw damagedFs(disk, structure, 'a distance above 1 in its index', low);
        at -= low - 2;
      }
    }
    return blocks;
  }
}
