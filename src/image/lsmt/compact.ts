import { SECTOR_BYTES } from '../../base/limits.ts';
import type { LayerBytes, LayerPiece } from '../layer-bytes.ts';
import type { Segments } from './overlay.ts';
import { LSMT_PIECE_SECTORS, type LsmtExtent } from './writer.ts';

/** Data that is read in one go... */
const WINDOW_SECTORS = 2048;
/** ...and the extents it is for. */
const WINDOW_EXTENTS = 4096;
/** Windows that are read while another one is used. */
const WINDOWS_AHEAD = 2;

/**
 * What `overlayLayers` left of some layers, with its data, read ahead: `writeCommittedLayer` makes a
 * merged layer of it, or the commit of a single one. `sources[i]` is the LSMT file of layer `i`,
 * bottom first. Tags number the sources from the top, as the original's merge does. Data is valid
 * until the next extent is asked for.
 */
export async function* extentsOf(
  segments: Segments,
  sources: readonly LayerBytes[],
): AsyncGenerator<LsmtExtent> {
  const plan = planWindows(segments, sources.length);
  const ahead: Promise<Window>[] = [];
  const idle: Uint8Array[] = [];
  try {
    for (;;) {
      while (ahead.length <= WINDOWS_AHEAD) {
        const next = plan.next();
        if (next.done === true) break;
        const buffer = idle.pop() ?? new Uint8Array(WINDOW_SECTORS * SECTOR_BYTES);
        const reading = readWindow(next.value, buffer, sources);
        // A failure is met when its turn comes; until then it is not unhandled.
        reading.catch(() => undefined);
        ahead.push(reading);
      }
      const window = await ahead.shift();
      if (window === undefined) return;
      yield* window.extents;
      idle.push(window.buffer);
    }
  } finally {
    await Promise.allSettled(ahead);
  }
}

/** Some extents in a row, and the pieces their data is in, by layer. */
interface WindowPlan {
  /** Those with data tell where in the window it will be. */
  extents: PlannedExtent[];
  pieces: LayerPiece[][];
}

interface PlannedExtent {
  lba: number;
  sectors: number;
  tag: number;
  /** Byte of the window; null for zeros. */
  target: number | null;
}

interface Window {
  extents: Iterable<LsmtExtent>;
  buffer: Uint8Array;
}

function* planWindows(segments: Segments, layerCount: number): Generator<WindowPlan> {
  let plan = emptyPlan(layerCount);
  let filledSectors = 0;
  for (let at = 0; at < segments.count; at += 1) {
    const layer = segments.layer[at];
    const tag = layerCount - 1 - layer;
    const isZeroed = segments.zeroed[at] === 1;
    for (let done = 0; done < segments.sectors[at];) {
      const lba = segments.start[at] + done;
      const left = segments.sectors[at] - done;
      const sectors = isZeroed ? left : cutAtPiece(left, WINDOW_SECTORS - filledSectors);
      if (sectors === 0 || plan.extents.length === WINDOW_EXTENTS) {
        yield plan;
        plan = emptyPlan(layerCount);
        filledSectors = 0;
        continue;
      }
      done += sectors;
      if (isZeroed) {
        plan.extents.push({ lba, sectors, tag, target: null });
        continue;
      }
      const offset = (segments.mapped[at] + done - sectors) * SECTOR_BYTES;
      const target = filledSectors * SECTOR_BYTES;
      plan.extents.push({ lba, sectors, tag, target });
      plan.pieces[layer].push({ offset, length: sectors * SECTOR_BYTES, target });
      filledSectors += sectors;
    }
  }
  if (plan.extents.length > 0) yield plan;
}

/** What does not fit is cut where the writer, like the original, cuts it: entries depend on that. */
function cutAtPiece(sectors: number, roomSectors: number): number {
  return sectors <= roomSectors ? sectors : roomSectors - (roomSectors % LSMT_PIECE_SECTORS);
}

function emptyPlan(layerCount: number): WindowPlan {
  return { extents: [], pieces: Array.from({ length: layerCount }, () => []) };
}

async function readWindow(
  { extents, pieces }: WindowPlan,
  buffer: Uint8Array,
  sources: readonly LayerBytes[],
): Promise<Window> {
  await Promise.all(pieces.map((own, layer) => readFrom(sources[layer], own, buffer)));
  return { extents: withData(extents, buffer), buffer };
}

async function readFrom(
  source: LayerBytes,
  pieces: readonly LayerPiece[],
  into: Uint8Array,
): Promise<void> {
  if (pieces.length === 0) return;
  if (source.readPieces !== undefined) return source.readPieces(pieces, into);
  for (const { offset, length, target } of pieces) {
    into.set(await source.read(offset, length), target);
  }
}

function* withData(extents: readonly PlannedExtent[], buffer: Uint8Array): Generator<LsmtExtent> {
  for (const { lba, sectors, tag, target } of extents) {
    if (target === null) yield { lba, sectors, tag, zeroed: true };
    else {
      const data = buffer.subarray(target, target + sectors * SECTOR_BYTES);
      yield { lba, sectors, tag, data };
    }
  }
}
