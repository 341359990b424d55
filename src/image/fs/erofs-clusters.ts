import { readMetadata, type ExtentList } from './content.ts';
import type { Disk } from './disk.ts';
import type { ErofsLayout } from './erofs.ts';
import { unsupportedFs } from './file-system.ts';

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

export async function addCompressedClusters(file: CompressedFile): Promise<void> {
  await readMetadata(file.disk, file.headerOffset, 8, file.structure);
  throw unsupportedFs(file.disk, file.structure, 'compression');
}
