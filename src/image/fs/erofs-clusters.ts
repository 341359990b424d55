import { fsReadLimits } from '../../base/limits.ts';
import { readMetadata, type ExtentList } from './content.ts';
import type { Disk } from './disk.ts';
import { CLUSTER, readCompactIndex, readFullIndex, type ClusterIndex } from './erofs-index.ts';
import type { ErofsLayout } from './erofs.ts';
import { fsTooLarge, unsupportedFs } from './file-system.ts';

/** What is needed to find a compressed file's clusters. */
export interface CompressedFile {
  readonly list: ExtentList;
  readonly disk: Disk;
  readonly layout: ErofsLayout;
  readonly sizeBytes: number;
  /** Byte of the disk where the file's map header is. */
  readonly headerOffset: number;
  readonly isCompact: boolean;
  readonly structure: string;
}

const HEADER_BYTES = 8;
const ADVISE_COMPACT_2B = 0x1;
const ADVISE_BIG_PCLUSTER = 0x6;
const ADVISE_INLINE_PCLUSTER = 0x8;
const ADVISE_FRAGMENT_PCLUSTER = 0x20;
/** In the cluster bits: all of the file is a part of another one. */
const FRAGMENT_INODE = 0x80;

/**
 * Adds the physical clusters of a compressed file: whole blocks, each with the byte of the file where
 * what it unpacks to begins (Linux, fs/erofs/zmap.c). Files that share a fragment of another file are
 * ERR_FS_UNSUPPORTED.
 */
export async function addCompressedClusters(file: CompressedFile): Promise<void> {
  const { list, disk, layout, structure, sizeBytes } = file;
  const { blockBytes } = layout;
  const header = await readHeader(file);
  const clusterBytes = blockBytes * 2 ** header.clusterShift;
  const clusters = Math.ceil(sizeBytes / clusterBytes);
  if (clusters > fsReadLimits.extentsMax) {
    throw fsTooLarge(disk, `${structure}: clusters`, fsReadLimits.extentsMax);
  }
  const index = await readIndex(file, header, clusters, clusterBytes);
  const hasInlineTail = (header.advise & ADVISE_INLINE_PCLUSTER) !== 0;
  const isBig = (header.advise & ADVISE_BIG_PCLUSTER) !== 0;
  const heads: { cluster: number; fileOffset: number }[] = [];
  for (let cluster = 0; cluster < clusters; cluster += 1) {
    const fileOffset = cluster * clusterBytes + index.low[cluster];
    // A begin at the file's end has nothing.
    const isHead = index.type[cluster] !== CLUSTER.nonhead && fileOffset < sizeBytes;
    if (isHead) heads.push({ cluster, fileOffset });
  }
  const tail = hasInlineTail ? heads.pop() : undefined;
  for (const { cluster, fileOffset } of heads) {
    const blocks = isBig ? blocksAfter(index, cluster) : 0;
    const length = blocks === 0 ? clusterBytes : blocks * blockBytes;
    list.add(fileOffset, index.block[cluster] * blockBytes, length);
  }
  if (tail !== undefined) list.add(tail.fileOffset, index.endOffset, header.inlineBytes);
}

interface MapHeader {
  readonly advise: number;
  readonly inlineBytes: number;
  /** A logical cluster is so many times two blocks. */
  readonly clusterShift: number;
}

/** Files of the first kind, in images of the first kind, have no header. */
async function readHeader(file: CompressedFile): Promise<MapHeader> {
  const { disk, layout, headerOffset, structure, isCompact } = file;
  if (!isCompact && !layout.hasMapHeaders) {
    return { advise: 0, inlineBytes: 0, clusterShift: 0 };
  }
  const header = await readMetadata(disk, headerOffset, HEADER_BYTES, structure);
  const advise = header.readUInt16LE(4);
  const bits = header.readUInt8(7);
  if ((bits & FRAGMENT_INODE) !== 0 || (advise & ADVISE_FRAGMENT_PCLUSTER) !== 0) {
    throw unsupportedFs(disk, structure, 'a fragment of another file');
  }
  return { advise, inlineBytes: header.readUInt16LE(2), clusterShift: bits & 7 };
}

function readIndex(
  file: CompressedFile,
  { advise }: MapHeader,
  count: number,
  clusterBytes: number,
): Promise<ClusterIndex> {
  const { disk, structure, headerOffset, isCompact } = file;
  const offset = headerOffset + HEADER_BYTES;
  const place = { disk, structure, offset, count, clusterShift: Math.log2(clusterBytes) };
  if (!isCompact) return readFullIndex(place);
  return readCompactIndex(place, {
    hasShortEntries: (advise & ADVISE_COMPACT_2B) !== 0,
    isBig: (advise & ADVISE_BIG_PCLUSTER) !== 0,
  });
}

/** Blocks of a big physical cluster: what follows its head tells. 0: as many as a cluster has. */
function blocksAfter({ type, compressedBlocks }: ClusterIndex, head: number): number {
  const next = head + 1;
  return next < type.length && type[next] === CLUSTER.nonhead ? compressedBlocks[next] : 0;
}
