import { open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { openScratchFile } from '../build/scratch-file.ts';
import { exportInto, type ExportFileOptions, type ExportSource } from '../export.ts';
import { writeOutputFile } from '../output-file.ts';
import { rawToQcow2 } from './qemu-img.ts';

/**
 * Writes the disk as a qcow2 image through qemu-img; a raw copy lies beside it meanwhile.
 * Errors: those of exportToFile, and ERR_QEMU_IMG.
 */
export async function exportToQcow2(
  source: ExportSource,
  path: string,
  options: ExportFileOptions = {},
): Promise<void> {
  await writeOutputFile(path, options, async (file) => {
    using raw = openScratchFile(dirname(path), `.replaybd-export-${process.pid}`);
    const rawFile = await open(raw.path, 'r+');
    try {
      await exportInto(rawFile, source, options);
    } finally {
      await rawFile.close();
    }
    await rawToQcow2(raw.path, `/proc/${process.pid}/fd/${file.fd}`, options);
  });
}
