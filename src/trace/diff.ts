import { SECTOR_BYTES } from '../base/limits.ts';
import { LargestStretches, type Stretch } from './diff-lists.ts';
import { compareOrders } from './diff-order.ts';
import { groupLayers, overlay, spansOfRecords, type Spans } from './spans.ts';
import type { Trace } from './trace.ts';

/** A common part has moved when its place among the common bytes shifts by more than this share, */
const MOVED_ORDER_SHARE = 0.1;
/** or its time by more than this, and this share of the earlier time besides. */
const MOVED_TIME_US = 100_000;
const MOVED_TIME_SHARE = 0.5;

export interface DiffSums {
  /** Of the disk. */
  bytes: number;
  /** Records, split where the two traces' records begin or end. */
  parts: number;
}

/** What two traces have in common and what not; `moved` is a part of `kept`. */
export interface DiffCounts {
  readonly kept: DiffSums;
  readonly moved: DiffSums;
  /** In the first trace only. */
  readonly lost: DiffSums;
  /** In the second trace only. */
  readonly new: DiffSums;
}

export interface LayerDiff extends DiffCounts {
  readonly digest: string;
  /** Whether each trace's image has the layer. */
  readonly inFirst: boolean;
  readonly inSecond: boolean;
}

export interface FileDiff {
  readonly path: string;
  keptBytes: number;
  movedBytes: number;
  lostBytes: number;
  newBytes: number;
}

/** A part of a file that lies in a stretch of the disk. */
export interface FilePiece {
  readonly path: string;
  readonly lba: number;
  readonly sectors: number;
  /** In bytes; an estimate where the file is compressed. */
  readonly fileOffset: number;
}

/** The parts of files in a stretch of the disk that a layer serves; what is of no file is left out. */
export type FileFinder = (digest: string, lba: number, sectors: number) => readonly FilePiece[];

export interface TraceDiff extends DiffCounts {
  /** 0 to 1: `sectorShare` x (1 + `orderCorrelation`) / 2. */
  readonly similarity: number;
  /** Common bytes / bytes of either (Jaccard); 1 when both are empty. */
  readonly sectorShare: number;
  /** Spearman's rank correlation of the common parts, weighted by size: -1 to 1. */
  readonly orderCorrelation: number;
  /** The first image's, bottom first, then those that only the second has. */
  readonly layers: readonly LayerDiff[];
  /** The largest stretches of each kind. */
  readonly largest: Readonly<Record<'lost' | 'new' | 'moved', readonly Stretch[]>>;
  /** Those that differ most; null without a finder. */
  readonly files: readonly FileDiff[] | null;
}

export interface DiffOptions {
  /** Entries of each list. */
  readonly listMax: number;
  /** The same of files. Default: `listMax`. */
  readonly filesMax?: number;
  readonly filesOf?: FileFinder;
  /** Told of each part; of one that moved as kept first, and as moved later. */
  readonly onPart?: (kind: DiffKind, part: Stretch) => void;
}

export type DiffKind = keyof DiffCounts;

/**
 * Compares two traces, of one image or of two: layers are matched by digest, and sectors by layer and
 * LBA. Times are those of the warm axis. Errors: those of spansOfRecords.
 */
export function diffTraces(first: Trace, second: Trace, options: DiffOptions): TraceDiff {
  const { digests, groupsOf } = groupLayers([first.image, second.image]);
  const spansOf = ({ records }: Trace, i: 0 | 1): Spans =>
    spansOfRecords(records, groupsOf[i], digests.length);
  const sums = new DiffCollector(digests, options);
  const common = collect([spansOf(first, 0), spansOf(second, 1)], digests.length, sums);
  const { correlation, shift } = compareOrders(common.sectors, common.order);
  for (let i = 0; i < common.sectors.length; i += 1) {
    const [firstUs, secondUs] = [common.timeUs[0][i], common.timeUs[1][i]];
    const isMoved = shift[i] > MOVED_ORDER_SHARE || isOtherTime(firstUs, secondUs);
    if (!isMoved) continue;
    sums.add('moved', common.group[i], common.lba[i], common.sectors[i], firstUs, secondUs);
  }
  const total = sums.total();
  const either = total.kept.bytes + total.lost.bytes + total.new.bytes;
  const sectorShare = either === 0 ? 1 : total.kept.bytes / either;
  return {
    similarity: (sectorShare * (1 + correlation)) / 2,
    sectorShare,
    orderCorrelation: correlation,
    ...total,
    layers: [...new Set(groupsOf.flat())].map((group) => ({
      digest: digests[group],
      inFirst: groupsOf[0].includes(group),
      inSecond: groupsOf[1].includes(group),
      ...sums.layers[group],
    })),
    largest: sums.largest(),
    files: sums.files(),
  };
}

/** Parts of both traces, in order of layer and place; `order` and `timeUs` by trace. */
interface CommonParts {
  readonly group: number[];
  readonly lba: number[];
  readonly sectors: number[];
  readonly order: readonly [number[], number[]];
  readonly timeUs: readonly [number[], number[]];
}

function collect(
  [first, second]: readonly [Spans, Spans],
  groupCount: number,
  sums: DiffCollector,
): CommonParts {
  const common: CommonParts = {
    group: [],
    lba: [],
    sectors: [],
    order: [[], []],
    timeUs: [[], []],
  };
  overlay([first, second], groupCount, (group, lba, sectors, at) => {
    const firstUs = at[0] < 0 ? null : first.timeUs[at[0]];
    const secondUs = at[1] < 0 ? null : second.timeUs[at[1]];
    const isCommon = firstUs !== null && secondUs !== null;
    const only = secondUs === null ? 'lost' : 'new';
    sums.add(isCommon ? 'kept' : only, group, lba, sectors, firstUs, secondUs);
    if (!isCommon) return;
    common.timeUs[0].push(firstUs);
    common.timeUs[1].push(secondUs);
    common.order[0].push(first.order[at[0]]);
    common.order[1].push(second.order[at[1]]);
    common.group.push(group);
    common.lba.push(lba);
    common.sectors.push(sectors);
  });
  return common;
}

function isOtherTime(firstUs: number, secondUs: number): boolean {
  const earlierUs = Math.min(firstUs, secondUs);
  return Math.abs(firstUs - secondUs) > MOVED_TIME_US + MOVED_TIME_SHARE * earlierUs;
}

function noCounts(): DiffCounts {
  const none = (): DiffSums => ({ bytes: 0, parts: 0 });
  return { kept: none(), moved: none(), lost: none(), new: none() };
}

/** Sums by layer and by file, and the longest lists' candidates. */
class DiffCollector {
  readonly layers: readonly DiffCounts[];
  readonly #digests: readonly string[];
  readonly #options: DiffOptions;
  readonly #files = new Map<string, FileDiff>();
  readonly #stretches: Readonly<Record<'lost' | 'new' | 'moved', LargestStretches>>;

  constructor(digests: readonly string[], options: DiffOptions) {
    this.layers = digests.map(noCounts);
    this.#digests = digests;
    this.#options = options;
    const list = (): LargestStretches => new LargestStretches(options.listMax);
    this.#stretches = { lost: list(), new: list(), moved: list() };
  }

  add(
    kind: DiffKind,
    group: number,
    lba: number,
    sectors: number,
    firstUs: number | null,
    secondUs: number | null,
  ): void {
    const sums = this.layers[group][kind];
    sums.bytes += sectors * SECTOR_BYTES;
    sums.parts += 1;
    const digest = this.#digests[group];
    const part = { digest, lba, sectors, firstUs, secondUs };
    if (kind !== 'kept') this.#stretches[kind].add(part);
    this.#options.onPart?.(kind, part);
    for (const piece of this.#options.filesOf?.(digest, lba, sectors) ?? []) {
      this.#fileOf(piece.path)[`${kind}Bytes`] += piece.sectors * SECTOR_BYTES;
    }
  }

  total(): DiffCounts {
    const total = noCounts();
    for (const layer of this.layers) {
      for (const kind of ['kept', 'moved', 'lost', 'new'] as const) {
        total[kind].bytes += layer[kind].bytes;
        total[kind].parts += layer[kind].parts;
      }
    }
    return total;
  }

  largest(): TraceDiff['largest'] {
    const { lost, new: added, moved } = this.#stretches;
    return { lost: lost.list(), new: added.list(), moved: moved.list() };
  }

  files(): readonly FileDiff[] | null {
    if (this.#options.filesOf === undefined) return null;
    const changed = (file: FileDiff): number => file.lostBytes + file.newBytes + file.movedBytes;
    return [...this.#files.values()]
      .sort((a, b) => changed(b) - changed(a) || (a.path < b.path ? -1 : 1))
      .slice(0, this.#options.filesMax ?? this.#options.listMax);
  }

  #fileOf(path: string): FileDiff {
    const known = this.#files.get(path);
    if (known !== undefined) return known;
    const file = { path, keptBytes: 0, movedBytes: 0, lostBytes: 0, newBytes: 0 };
    this.#files.set(path, file);
    return file;
  }
}
