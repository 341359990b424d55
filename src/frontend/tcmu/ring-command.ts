import assert from 'node:assert';
import { ringLimits } from '../../base/limits.ts';
import { scsiStatus } from './scsi/codes.ts';
import { CDB_BYTES_MAX, ScsiCommand } from './scsi/command.ts';
import type { DataRegion } from './scsi/data-region.ts';
import type { Mailbox } from './mailbox.ts';
import {
  COMMAND_BYTES_MIN,
  entryField,
  responseField,
  userFlag,
  VECTOR_BYTES,
} from './ring-layout.ts';
import type { ViewCache } from './view-cache.ts';

/** Offsets beyond this are in no memory; the high word of a 64-bit number then is small. */
const HIGH_WORD_MAX = 0xffff;

/** A command of the ring: everything that its entry says is copied, because a response, perhaps
 * another command's, takes the entry's place. */
export class RingCommand extends ScsiCommand {
  commandId = 0;
  /** It has been carried out and waits for its turn, on a ring that is answered in order. */
  isDone = false;

  /**
   * Takes the command from its entry at `at`, which ends at `end`; both are offsets in the memory.
   * False when the entry points to memory that commands and data cannot be in.
   */
  parse(mailbox: Mailbox, views: ViewCache, at: number, end: number): boolean {
    const { view, bytes, words } = mailbox;
    this.reset();
    this.isDone = false;
    this.commandId = view.getUint16(at + entryField.commandId, true);
    const cdbHigh = words[(at + entryField.cdbOffset) / 4 + 1];
    const cdbAt = words[(at + entryField.cdbOffset) / 4] >>> 0;
    if (cdbHigh !== 0 || cdbAt < at + entryField.vectors || cdbAt >= end) return false;
    this.cdbLength = Math.min(CDB_BYTES_MAX, end - cdbAt);
    for (let i = 0; i < this.cdbLength; i += 1) this.cdb[i] = bytes[cdbAt + i];
    const count = words[(at + entryField.vectorCount) / 4] >>> 0;
    const bidirectional = words[(at + entryField.bidirectionalCount) / 4] >>> 0;
    const vectors = at + entryField.vectors;
    const fits = count + bidirectional <= ringLimits.vectorsMax;
    if (!fits || vectors + (count + bidirectional) * VECTOR_BYTES > end) return false;
    this.isBidirectional = bidirectional > 0;
    const second = vectors + count * VECTOR_BYTES;
    return (
      addVectors(this.data, mailbox, views, vectors, count) &&
      addVectors(this.bidirectional, mailbox, views, second, bidirectional)
    );
  }

  /** Puts the outcome over the entry at `at`, which may be another command's. */
  respond({ view, bytes, hasReadLength }: Mailbox, at: number, entryBytes: number): void {
    assert(entryBytes >= COMMAND_BYTES_MIN);
    view.setUint16(at + entryField.commandId, this.commandId, true);
    view.setUint32(at + responseField.status, this.status, true);
    const isShort = this.dataInLength > 0 && this.dataInLength < this.dataIn.length;
    const saysLength = hasReadLength && isShort && this.status === scsiStatus.good;
    view.setUint32(at + responseField.readLength, saysLength ? this.dataInLength : 0, true);
    bytes[at + entryField.userFlags] = saysLength ? userFlag.readLength : 0;
    if (this.senseLength > 0) bytes.set(this.sense, at + responseField.sense);
  }
}

/** The memory that some vectors name, in the data area and nowhere else. */
function addVectors(
  region: DataRegion,
  { words, bytes, dataOffset }: Mailbox,
  views: ViewCache,
  at: number,
  count: number,
): boolean {
  for (let i = 0; i < count; i += 1) {
    const word = (at + i * VECTOR_BYTES) / 4;
    const baseHigh = words[word + 1] >>> 0;
    const lengthHigh = words[word + 3];
    if (baseHigh > HIGH_WORD_MAX || lengthHigh !== 0) return false;
    const base = (words[word] >>> 0) + baseHigh * 2 ** 32;
    const length = words[word + 2] >>> 0;
    if (base < dataOffset || length > bytes.length - base) return false;
    if (length > 0) region.add(views.view(base, length));
  }
  return true;
}
