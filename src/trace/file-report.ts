import { printable } from '../base/printable.ts';
import { SECTOR_BYTES } from '../base/limits.ts';
import type { FileMap, MappedPart, PartKind } from './file-map.ts';
import { partsOfRecord, type TraceTarget } from './served-by.ts';
import { waitedUs, type Trace } from './trace.ts';

/** What a run read of one file, directory or link, or of one kind of metadata. */
export interface FileUse {
  /** `/usr/bin/app`, `<directory> /usr/bin`, `<symlink> /bin`, `<inode table>`: untrusted text. */
  readonly name: string;
  readonly kind: PartKind;
  /** All of a file's paths, the first included. */
  readonly paths: readonly string[];
  /** Null for metadata. */
  readonly sizeBytes: number | null;
  /** Since the recording began. */
  readonly firstUs: number;
  readonly lastUs: number;
  /** Of the disk: fewer than of the file where it is compressed. */
  readonly bytes: number;
  /** The part of the file that was read, 0 to 1; null for metadata and empty files. */
  readonly share: number | null;
  /** How long the run waited after it began to read this and before it read something else. */
  readonly waitUs: number;
  /** Where the bytes came from, by layer of the trace; layers without any are left out. */
  readonly layers: readonly { layer: number; bytes: number }[];
  /** What it meets with in a simulated start; null where none was simulated. */
  readonly simulated: SimulatedUse | null;
}

export interface SimulatedUse {
  /** Of the disk: still being fetched when it is read. */
  readonly lateBytes: number;
  /** Of the disk: not fetched ahead. */
  readonly demandBytes: number;
  /** How long the start waits for it. */
  readonly waitUs: number;
}

/** What a trace's records meet with in a simulated start, by the record's index. */
export interface SimulatedRecords {
  readonly isLate: (record: number) => boolean;
  readonly isDemand: (record: number) => boolean;
  readonly waitUs: (record: number) => number;
}

/** All uses of one kind. */
export interface KindUse {
  readonly kind: PartKind;
  readonly count: number;
  readonly bytes: number;
  readonly waitUs: number;
}

export interface FileReport {
  readonly fileSystem: FileMap['type'];
  /** That the trace's records have, and how much of it the image serves from other layers. */
  readonly bytes: number;
  readonly foreignBytes: number;
  readonly waitUs: number;
  /** Of the simulated start; null where none was simulated. */
  readonly simulatedWaitUs: number | null;
  readonly kinds: readonly KindUse[];
  /** In order of the first access. */
  readonly files: readonly FileUse[];
  /** Files that could not be found for damage, with the reasons: untrusted text. */
  readonly unmapped: readonly { path: string; reason: string }[];
}

/** Tells a trace's records by file. What the image serves from other layers is counted, not told. */
export function reportFiles(
  trace: Trace,
  map: FileMap,
  target: TraceTarget,
  simulated: SimulatedRecords | null = null,
): FileReport {
  const { records } = trace;
  const uses = new Map<number | PartKind, UseBuilder>();
  let bytes = 0;
  let foreignBytes = 0;
  for (let i = 0; i < records.count; i += 1) {
    // A record is stamped before it waits itself.
    const waitUs = i + 1 < records.count ? records.waitUs[i + 1] - records.waitUs[i] : 0;
    const recordBytes = records.sectors[i] * SECTOR_BYTES;
    bytes += recordBytes;
    for (const { lba, sectors, isSame } of partsOfRecord(trace, i, target)) {
      if (!isSame) {
        foreignBytes += sectors * SECTOR_BYTES;
        continue;
      }
      for (const part of map.parts(lba * SECTOR_BYTES, sectors * SECTOR_BYTES)) {
        const key = isOfNode(part) ? part.node : kindOf(part);
        const use = uses.get(key) ?? new UseBuilder(kindOf(part), records.timeUs[i]);
        uses.set(key, use);
        use.add(part, records.timeUs[i], records.layer[i]);
        use.waitUs += (waitUs * part.length) / recordBytes;
        if (simulated !== null) use.meet(simulated, i, part.length, part.length / recordBytes);
      }
    }
  }
  const files = [...uses].map(([key, use]) =>
    use.finish(typeof key === 'number' ? key : null, map),
  );
  return {
    fileSystem: map.type,
    bytes,
    foreignBytes,
    waitUs: waitedUs(records),
    simulatedWaitUs: simulated === null ? null : totalWaitUs(simulated, records.count),
    kinds: kindsOf(files),
    files,
    unmapped: map.unmapped.map(({ path, reason }) => ({ path: `/${path.toString()}`, reason })),
  };
}

export const FILE_ORDERS = ['time', 'size', 'path', 'wait'] as const;
export type FileOrder = (typeof FILE_ORDERS)[number];

/** By first access, most bytes, name, or longest wait: the simulated one where there is one. */
export function sortFiles(files: readonly FileUse[], order: FileOrder): FileUse[] {
  const compare: Record<FileOrder, (a: FileUse, b: FileUse) => number> = {
    time: (a, b) => a.firstUs - b.firstUs,
    size: (a, b) => b.bytes - a.bytes,
    path: (a, b) => Number(a.name > b.name) - Number(a.name < b.name),
    wait: (a, b) => waitOf(b) - waitOf(a),
  };
  return [...files].sort(compare[order]);
}

function waitOf({ waitUs, simulated }: FileUse): number {
  return simulated?.waitUs ?? waitUs;
}

function totalWaitUs({ waitUs }: SimulatedRecords, count: number): number {
  let totalUs = 0;
  for (let record = 0; record < count; record += 1) totalUs += waitUs(record);
  return totalUs;
}

/** A report as lines for people. */
export function formatFileReport(report: FileReport, files: readonly FileUse[]): string {
  const { fileSystem, bytes, foreignBytes, waitUs, simulatedWaitUs, kinds } = report;
  const lines = [
    `${kib(bytes)} read of ${report.files.length} files and structures (${fileSystem}), ` +
      `${seconds(waitUs)} waited`,
  ];
  if (simulatedWaitUs !== null) lines.push(`${seconds(simulatedWaitUs)} waited in the simulation`);
  if (foreignBytes > 0) lines.push(`${kib(foreignBytes)} of it is of other layers: not told below`);
  for (const { kind, count, bytes: kindBytes, waitUs: kindWaitUs } of kinds) {
    const facts = `${kib(kindBytes)} ${seconds(kindWaitUs)}`;
    lines.push(`${kind.padEnd(12)} ${String(count).padStart(7)} ${facts}`);
  }
  const columns = simulatedWaitUs === null ? '' : '       late      demand simulated';
  lines.push('', `     first        read  share    waited${columns}  layers  file`);
  for (const file of files) {
    const share = file.share === null ? '-' : `${Math.round(file.share * 100)} %`;
    const layers = file.layers.map(({ layer }) => layer).join(',');
    lines.push(
      `${seconds(file.firstUs)} ${kib(file.bytes)} ${share.padStart(6)} ${seconds(file.waitUs)}` +
        `${simulatedCells(file)}  ${layers.padEnd(6)}  ${printable(file.name)}`,
    );
  }
  const left = report.files.length - files.length;
  if (left > 0) lines.push(`and ${left} more`);
  for (const { path, reason } of report.unmapped) lines.push(printable(`${path}: ${reason}`));
  return `${lines.join('\n')}\n`;
}

function simulatedCells({ simulated }: FileUse): string {
  if (simulated === null) return '';
  const { lateBytes, demandBytes, waitUs } = simulated;
  return `${kib(lateBytes)} ${kib(demandBytes)}${seconds(waitUs)}`;
}

/** Collects what was read of one file. */
class UseBuilder {
  waitUs = 0;
  readonly #kind: PartKind;
  readonly #firstUs: number;
  readonly #bytesOfLayer = new Map<number, number>();
  #lastUs: number;
  #bytes = 0;
  #fileBytes = 0;
  #simulated: { lateBytes: number; demandBytes: number; waitUs: number } | null = null;

  constructor(kind: PartKind, firstUs: number) {
    this.#kind = kind;
    this.#firstUs = firstUs;
    this.#lastUs = firstUs;
  }

  add(part: MappedPart, timeUs: number, layer: number): void {
    this.#bytes += part.length;
    this.#fileBytes += part.fileLength;
    this.#bytesOfLayer.set(layer, (this.#bytesOfLayer.get(layer) ?? 0) + part.length);
    this.#lastUs = timeUs;
  }

  /** Of a record, so many bytes and such a share are the file's. */
  meet(simulated: SimulatedRecords, record: number, bytes: number, share: number): void {
    this.#simulated ??= { lateBytes: 0, demandBytes: 0, waitUs: 0 };
    if (simulated.isLate(record)) this.#simulated.lateBytes += bytes;
    if (simulated.isDemand(record)) this.#simulated.demandBytes += bytes;
    this.#simulated.waitUs += simulated.waitUs(record) * share;
  }

  finish(node: number | null, map: FileMap): FileUse {
    const facts = node === null ? null : map.node(node);
    const paths = facts?.paths.map((path) => `/${path.toString()}`) ?? [];
    const sizeBytes = facts?.sizeBytes ?? null;
    const hasShare = sizeBytes !== null && sizeBytes > 0;
    const isFile = this.#kind === 'file';
    return {
      name: isFile ? paths[0] : [`<${this.#kind}>`, ...paths.slice(0, 1)].join(' '),
      kind: this.#kind,
      paths,
      sizeBytes,
      firstUs: this.#firstUs,
      lastUs: this.#lastUs,
      bytes: this.#bytes,
      // The last sector of a file goes on behind its end.
      share: hasShare ? Math.min(1, this.#fileBytes / sizeBytes) : null,
      waitUs: this.waitUs,
      layers: [...this.#bytesOfLayer]
        .map(([layer, bytes]) => ({ layer, bytes }))
        .sort((a, b) => a.layer - b.layer),
      simulated: this.#simulated,
    };
  }
}

/** Whether a part is told by its file. Inodes and maps are told together. */
function isOfNode(part: MappedPart): part is MappedPart & { node: number } {
  return part.node !== null && ['file', 'directory', 'symlink'].includes(part.kind);
}

/** Inodes are in tables in ext4, and elsewhere in erofs: the same to whoever reads a report. */
function kindOf({ kind }: MappedPart): PartKind {
  return kind === 'inode' ? 'inode table' : kind;
}

function kindsOf(files: readonly FileUse[]): KindUse[] {
  const kinds = new Map<PartKind, KindUse>();
  for (const { kind, bytes, waitUs } of files) {
    const sum = kinds.get(kind) ?? { kind, count: 0, bytes: 0, waitUs: 0 };
    kinds.set(kind, {
      kind,
      count: sum.count + 1,
      bytes: sum.bytes + bytes,
      waitUs: sum.waitUs + waitUs,
    });
  }
  return [...kinds.values()].sort((a, b) => b.bytes - a.bytes);
}

function kib(bytes: number): string {
  return `${(bytes / 1024).toFixed(1)} KiB`.padStart(11);
}

function seconds(us: number): string {
  return `${(us / 1e6).toFixed(4)} s`.padStart(10);
}
