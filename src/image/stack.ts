import type { Blob } from '../blob/blob.ts';
import { ReplaybdError } from '../base/errors.ts';
import { lsmtLimits, SECTOR_BYTES } from '../base/limits.ts';
import type { ByteRange } from '../base/range.ts';
import { blobRange, layerBlobOn, openLayerBlob, type LayerBlob } from './layer-blob.ts';
import { openLsmtLayer, type LsmtLayer, type LsmtSummary } from './lsmt/layer.ts';
import { findSegment, mergeLayers, mergeOnto } from './lsmt/merged-index.ts';
import { ZERO_LAYER, type StackMap } from './stack-map.ts';

/** One opened lower. */
export interface StackLayer {
  readonly blob: Blob;
  readonly container: LayerBlob;
  readonly lsmt: LsmtSummary;
  /** Blob ranges that opening the layer reads: headers, indexes, trailers. */
  readonly metadataRanges: readonly ByteRange[];
}

/** Where a piece of the virtual disk lives: bytes of one layer's LSMT file. */
export interface StackPiece {
  readonly lba: number;
  readonly sectors: number;
  /** Position in `lowers`; 0 is the bottom. */
  readonly layer: number;
  /** Byte offset in the layer's LSMT file. */
  readonly lsmtOffset: number;
}

/** A stack of read-only layers merged into one disk. */
export interface Stack {
  readonly map: StackMap;
  readonly layers: readonly StackLayer[];
  /** The pieces of a sector range that some layer's data serves; zeros and holes are left out. */
  locate(lba: number, sectors: number): StackPiece[];
  /** The compressed blob bytes behind a piece. */
  blobRangeOf(piece: StackPiece): ByteRange;
}

/** A stack that still has what it was merged from. */
export interface IndexedStack extends Stack {
  readonly layers: readonly IndexedLayer[];
}

/** An opened lower, with its index. */
export interface IndexedLayer extends StackLayer {
  readonly lsmt: LsmtLayer;
}

/**
 * Opens layers, bottom first, concurrently, and merges them. The blobs stay the caller's to close.
 * Errors: those of the formats, with the failing layer's name.
 */
export async function openStack(blobs: readonly Blob[]): Promise<Stack> {
  const stack = await openIndexedStack(blobs);
  return { ...stack, layers: stack.layers.map(withoutIndex) };
}

/** As openStack, for those who look at the layers' indexes too. */
export async function openIndexedStack(blobs: readonly Blob[]): Promise<IndexedStack> {
  if (blobs.length === 0 || blobs.length > lsmtLimits.layersMax) {
    throw layersError(blobs.length);
  }
  const opening = blobs.map(openStackLayer);
  // One that fails must not be reported before the others have ended: the caller then closes the
  // blobs, and their memory goes.
  await Promise.allSettled(opening);
  const layers = await Promise.all(opening);
  const virtualSizeBytes = topmostVirtualSize(layers);
  const index = mergeLayers(
    layers.map((layer) => layer.lsmt),
    virtualSizeBytes,
  );
  const map: StackMap = {
    virtualSizeBytes,
    index,
    layers: layers.map((layer) => layer.container.map),
  };
  return { layers, ...lookups(map) };
}

/**
 * A stack of other openings of the same blobs: it shares the first one's index and jump tables, and
 * nothing is read. The blobs stay the caller's to close.
 */
export function stackOn(stack: Stack, blobs: readonly Blob[]): Stack {
  const layers = stack.layers.map((layer, i) => {
    return { ...layer, blob: blobs[i], container: layerBlobOn(layer.container, blobs[i]) };
  });
  const maps = layers.map(({ container }) => container.map);
  return { layers, ...lookups({ ...stack.map, layers: maps }) };
}

/**
 * The stack with one more layer on top; the layers below are not looked at again. The blob stays the
 * caller's to close. Errors: ERR_STACK_LAYERS, ERR_LSMT_SEGMENTS, and those of the formats.
 */
export async function stackOnto(stack: Stack, blob: Blob): Promise<Stack> {
  const number = stack.layers.length;
  if (number >= lsmtLimits.layersMax) throw layersError(number + 1);
  const layer = await openStackLayer(blob);
  const { virtualSizeBytes } = layer.lsmt.facts;
  const map: StackMap = {
    virtualSizeBytes: virtualSizeBytes > 0 ? virtualSizeBytes : stack.map.virtualSizeBytes,
    index: mergeOnto(stack.map.index, layer.lsmt, number),
    layers: [...stack.map.layers, layer.container.map],
  };
  return { layers: [...stack.layers, withoutIndex(layer)], ...lookups(map) };
}

/** A device lives long, and the layers' own indexes take more memory than the merged one. */
function withoutIndex(layer: IndexedLayer): StackLayer {
  const { name, facts, metadataRanges } = layer.lsmt;
  return { ...layer, lsmt: { name, facts, metadataRanges } };
}

/** A stack without layers: all of it reads as zeros. For a writable layer that has nothing below. */
export function emptyStack(virtualSizeBytes: number): IndexedStack {
  return { layers: [], ...lookups({ virtualSizeBytes, index: mergeLayers([], 0), layers: [] }) };
}

function lookups(map: StackMap): Pick<Stack, 'map' | 'locate' | 'blobRangeOf'> {
  return {
    map,
    locate: (lba, sectors) => locate(map, lba, sectors),
    blobRangeOf: (piece) =>
      blobRange(map.layers[piece.layer], piece.lsmtOffset, piece.sectors * SECTOR_BYTES),
  };
}

function layersError(found: number): ReplaybdError {
  return new ReplaybdError(
    'ERR_STACK_LAYERS',
    `an image needs 1 to ${lsmtLimits.layersMax} lower layers, found ${found}`,
  );
}

async function openStackLayer(blob: Blob): Promise<IndexedLayer> {
  const container = await openLayerBlob(blob);
  const lsmt = await openLsmtLayer(container.bytes);
  const lsmtRanges = lsmt.metadataRanges.map((range) =>
    blobRange(container.map, range.offset, range.length),
  );
  const metadataRanges = [...container.metadataRanges, ...lsmtRanges];
  return { blob, container, lsmt, metadataRanges };
}

/** The disk is as large as the topmost layer that states a size says. */
function topmostVirtualSize(layers: readonly StackLayer[]): number {
  const top = layers.findLast((layer) => layer.lsmt.facts.virtualSizeBytes > 0);
  if (top === undefined) {
    throw new ReplaybdError(
      'ERR_STACK_SIZE',
      `${layers[0].blob.name}: no layer of the image states a virtual size; the disk would be empty`,
    );
  }
  return top.lsmt.facts.virtualSizeBytes;
}

function locate(map: StackMap, lba: number, sectors: number): StackPiece[] {
  const { index } = map;
  const pieces: StackPiece[] = [];
  const lbaEnd = lba + sectors;
  for (
    let segment = findSegment(index, lba);
    segment < index.segmentCount && index.start[segment] < lbaEnd;
    segment += 1
  ) {
    const layer = index.layer[segment];
    if (layer === ZERO_LAYER) continue;
    const from = Math.max(lba, index.start[segment]);
    const to = Math.min(lbaEnd, index.start[segment] + index.sectors[segment]);
    const lsmtOffset = (index.mapped[segment] + from - index.start[segment]) * SECTOR_BYTES;
    pieces.push({ lba: from, sectors: to - from, layer, lsmtOffset });
  }
  return pieces;
}
