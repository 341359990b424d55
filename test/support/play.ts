import { writeFileSync } from 'node:fs';
import type { AttachmentReport } from '../../src/daemon/attachment.ts';
import type { PlayResult } from '../../src/daemon/player.ts';

/** What `play --json` prints. */
export interface PlayOutput extends PlayResult {
  openMs: number;
  report: AttachmentReport;
}

const READ_BYTES = 256 * 1024;

/** Writes a read list that covers a disk from its first to its last byte. */
export function writeWholeDiskList(path: string, virtualSizeBytes: number): void {
  const lines: string[] = [];
  for (let offset = 0; offset < virtualSizeBytes; offset += READ_BYTES) {
    lines.push(`${offset} ${Math.min(READ_BYTES, virtualSizeBytes - offset)}`);
  }
  writeFileSync(path, `${lines.join('\n')}\n`);
}
