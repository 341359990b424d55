import { lsmtLimits } from '../../base/limits.ts';
import { LSMT_DATA_SECTOR } from './format.ts';
import type { LsmtEntryColumns } from './index-entries.ts';
import { PieceColumns } from './log-replay.ts';
import { runKinds } from './sector-map.ts';
import type { SharedUpper } from './shared-upper.ts';

/** A live index as entries, in as few as that takes. Nobody may be writing. */
export function columnsOfMap(upper: SharedUpper, sectorEnd: number): LsmtEntryColumns {
  const map = upper.sectors;
  const pieces = new PieceColumns();
  for (let lba = 0; lba < sectorEnd;) {
    const sectors = map.find(lba, sectorEnd - lba);
    if (map.kind !== runKinds.absent) {
      const isZeroed = map.kind === runKinds.zeroed;
      const from = isZeroed ? LSMT_DATA_SECTOR : upper.dataSector(lba);
      const stepMax = lsmtLimits.segmentSectorsMax;
      for (let done = 0; done < sectors; done += stepMax) {
        const part = Math.min(stepMax, sectors - done);
        pieces.push(lba + done, part, isZeroed ? from : from + done, isZeroed);
      }
    }
    lba += sectors;
  }
  return pieces.inOrder();
}
