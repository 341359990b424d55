import { messageOf } from '../base/errors.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';
import type { Disk } from '../image/fs/disk.ts';
import { buildPlan } from './build-plan.ts';
import type { FileMap } from './file-map.ts';
import { MovedFiles, type MoveOptions } from './moved-files.ts';
import { RebasedRecords } from './rebased-records.ts';
import { partsOfRecord, type TraceTarget } from './served-by.ts';
import type { Trace } from './trace.ts';

/** A part of the old trace. Each record counts once: as kept when all of it is, as dropped when all is. */
export interface RebaseShare {
  readonly records: number;
  readonly sectors: number;
  readonly bytes: number;
}

/** What became of the old trace's records: the three shares together are all of them. */
export interface RebaseFacts {
  /** Served by the same layer as before. */
  readonly kept: RebaseShare;
  /** Found in the new image by file. */
  readonly mapped: RebaseShare;
  readonly dropped: RebaseShare;
  /** Of the new trace. */
  readonly records: number;
  readonly sectors: number;
  /** (dropped + mapped / 2) / all, by sectors: 0 when all is kept, 1 when all is dropped. */
  readonly staleness: number;
  /** Why something could not be looked up: untrusted text. */
  readonly problems: readonly string[];
}

export interface Rebased {
  readonly trace: Trace;
  readonly facts: RebaseFacts;
}

/** What records are mapped through: the old image's files, and the new image's disk. */
export interface RebaseFiles {
  readonly from: FileMap;
  readonly to: Disk;
}

/** Whether the image serves anything of the trace from other layers than it did. */
export function isStale(trace: Trace, target: TraceTarget): boolean {
  for (let i = 0; i < trace.records.count; i += 1) {
    for (const { isSame } of partsOfRecord(trace, i, target)) if (!isSame) return true;
  }
  return false;
}

/**
 * Makes a trace of an image of one of an older image: records, or parts of them, whose layer still
 * serves them are kept; others are mapped through files, where those are known. Records keep their
 * times. Errors: only the signal's reason.
 */
export async function rebaseTrace(
  trace: Trace,
  target: TraceTarget,
  files: RebaseFiles | null,
  options: MoveOptions = {},
): Promise<Rebased> {
  const problems: string[] = [];
  const moved = files === null ? null : await openMoved(files, problems, options.signal);
  if (files !== null && moved !== null) {
    await moved.find(movedNodes(trace, target, files.from, moved), options);
    problems.push(...moved.problems);
  }
  const rebase = new Rebase(trace, target, files?.from ?? null, moved);
  for (let i = 0; i < trace.records.count; i += 1) rebase.addRecord(i);
  return rebase.finish(problems);
}

/** A disk whose file system cannot be read is one where nothing is found. */
async function openMoved(
  { from, to }: RebaseFiles,
  problems: string[],
  signal?: AbortSignal,
): Promise<MovedFiles | null> {
  try {
    return await MovedFiles.open(from, to);
  } catch (error) {
    signal?.throwIfAborted();
    problems.push(messageOf(error));
    return null;
  }
}

/** The old image's nodes that have to be found in the new one. */
function movedNodes(
  trace: Trace,
  target: TraceTarget,
  from: FileMap,
  moved: MovedFiles,
): Set<number> {
  const nodes = new Set<number>();
  for (let i = 0; i < trace.records.count; i += 1) {
    for (const { lba, sectors, isSame } of partsOfRecord(trace, i, target)) {
      for (const part of from.parts(lba * SECTOR_BYTES, sectors * SECTOR_BYTES)) {
        moved.note(part);
        if (!isSame && part.node !== null) nodes.add(part.node);
      }
    }
  }
  return nodes;
}

interface Tally {
  records: number;
  sectors: number;
}

class Rebase {
  readonly #trace: Trace;
  readonly #target: TraceTarget;
  readonly #from: FileMap | null;
  readonly #moved: MovedFiles | null;
  readonly #records: RebasedRecords;
  readonly #kept: Tally = { records: 0, sectors: 0 };
  readonly #mapped: Tally = { records: 0, sectors: 0 };
  readonly #dropped: Tally = { records: 0, sectors: 0 };

  constructor(trace: Trace, target: TraceTarget, from: FileMap | null, moved: MovedFiles | null) {
    this.#trace = trace;
    this.#target = target;
    this.#from = from;
    this.#moved = moved;
    this.#records = new RebasedRecords(trace.records, (lba, sectors) =>
      target.stack.locate(lba, sectors),
    );
  }

  addRecord(record: number): void {
    let kept = 0;
    let mapped = 0;
    for (const { lba, sectors, isSame } of partsOfRecord(this.#trace, record, this.#target)) {
      if (!isSame) mapped += this.#map(record, lba, sectors);
      else if (this.#records.add(record, lba, sectors)) kept += sectors;
    }
    const all = this.#trace.records.sectors[record];
    this.#kept.sectors += kept;
    this.#mapped.sectors += mapped;
    this.#dropped.sectors += all - kept - mapped;
    if (kept === all) this.#kept.records += 1;
    else if (kept + mapped === 0) this.#dropped.records += 1;
    else this.#mapped.records += 1;
  }

  finish(problems: readonly string[]): Rebased {
    const { image, stack } = this.#target;
    const records = this.#records.finish();
    const plan = buildPlan({
      records,
      layers: image.layers,
      resolver: stack,
      metadataRanges: stack.layers.map(({ metadataRanges }) => metadataRanges),
    });
    const { workload, recording, runs } = this.#trace;
    const trace = {
      ...{ image, workload, runs, records, plan },
      recording: { ...recording, deviceSizeBytes: image.virtualSizeBytes },
    };
    const all = this.#kept.sectors + this.#mapped.sectors + this.#dropped.sectors;
    const stale = this.#dropped.sectors + this.#mapped.sectors / 2;
    return {
      trace,
      facts: {
        kept: shareOf(this.#kept),
        mapped: shareOf(this.#mapped),
        dropped: shareOf(this.#dropped),
        records: records.count,
        sectors: records.sectors.reduce((sum, sectors) => sum + sectors, 0),
        staleness: all === 0 ? 0 : stale / all,
        problems,
      },
    };
  }

  /** Adds what stands for a part of the old disk; how many of its sectors something stands for. */
  #map(record: number, lba: number, sectors: number): number {
    if (this.#from === null || this.#moved === null) return 0;
    let mapped = 0;
    let mappedEnd = lba;
    for (const part of this.#from.parts(lba * SECTOR_BYTES, sectors * SECTOR_BYTES)) {
      const place = this.#moved.placeOf(part);
      if (place === null) continue;
      for (const range of place.way) this.#addRange(record, range);
      const added = place.ranges.map((range) => this.#addRange(record, range));
      if (added.length > 0 && !added.includes(true)) continue;
      const first = Math.max(Math.floor(part.offset / SECTOR_BYTES), mappedEnd);
      const end = Math.ceil((part.offset + part.length) / SECTOR_BYTES);
      mapped += Math.max(0, end - first);
      mappedEnd = Math.max(mappedEnd, end);
    }
    return mapped;
  }

  #addRange(record: number, { offset, length }: ByteRange): boolean {
    return this.#records.add(record, offset / SECTOR_BYTES, length / SECTOR_BYTES);
  }
}

function shareOf({ records, sectors }: Tally): RebaseShare {
  return { records, sectors, bytes: sectors * SECTOR_BYTES };
}
